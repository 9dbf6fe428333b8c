#include "control/db/agents_db.h"

#include "control/db/db_test.h"

static int64_t version_of(struct fixture *f, const char *agent)
{
	int64_t version = -1;

	must(agents_db_token_version(&f->db, agent, &version, &f->err));
	return version;
}

static void test_each_rotation_is_a_version_and_an_audit_row(void **state)
{
	struct fixture *f = *state;
	struct agent_audit *rows = NULL;
	struct agent *agents = NULL;
	size_t count = 0;
	int64_t version = 0;

	assert_int_equal(version_of(f, "a"), 0);
	must(agents_db_rotate(&f->db, "a", "root", 3600, &version, &f->err));
	assert_int_equal(version, 1);
	must(agents_db_rotate(&f->db, "b", "root", 60, &version, &f->err));
	pass_time(f, NS_PER_S);
	must(agents_db_rotate(&f->db, "a", "ops", 7200, &version, &f->err));
	assert_int_equal(version, 2);
	assert_int_equal(version_of(f, "a"), 2);
	assert_int_equal(version_of(f, "b"), 1);
	must(agents_db_audit(&f->db, 2, f->arena, &rows, &count, &f->err));
	assert_int_equal(count, 2);
	assert_string_equal(rows[0].agent_id, "a");
	assert_string_equal(rows[0].rotated_by, "ops");
	assert_int_equal(rows[0].token_version, 2);
	assert_int_equal(rows[0].ttl_s, 7200);
	assert_int_equal(rows[0].rotated_at, f->now);
	assert_string_equal(rows[1].agent_id, "b");
	must(agents_db_list(&f->db, 10, f->arena, &agents, &count, &f->err));
	assert_int_equal(count, 2);
	assert_string_equal(agents[0].agent_id, "a");
	assert_int_equal(agents[0].ttl_s, 7200);
	assert_int_equal(agents[0].last_seen_at, 0);
	assert_null(agents[0].version);
}

static struct agent seen(struct fixture *f, int64_t vcpus)
{
	struct agent agent = {.agent_id = "a", .version = "0.1", .labels = "linux", .vcpus = vcpus, .memory_mb = 512};
	struct agent *agents = NULL;
	size_t count = 0;

	must(agents_db_seen(&f->db, &agent, &f->err));
	must(agents_db_list(&f->db, 10, f->arena, &agents, &count, &f->err));
	assert_int_equal(count, 1);
	return agents[0];
}

static void test_seen_is_written_when_it_is_news(void **state)
{
	struct fixture *f = *state;
	int64_t version = 0;
	int64_t start = f->now;

	assert_int_equal(seen(f, 2).last_seen_at, start);
	pass_time(f, 9 * NS_PER_S);
	assert_int_equal(seen(f, 2).last_seen_at, start); /* said a moment ago */
	assert_int_equal(seen(f, 4).last_seen_at, f->now);
	pass_time(f, 10 * NS_PER_S);
	struct agent agent = seen(f, 4);
	assert_int_equal(agent.last_seen_at, f->now);
	assert_int_equal(agent.vcpus, 4);
	assert_string_equal(agent.labels, "linux");
	assert_int_equal(agent.token_version, 0);
	/* Being seen gives no credential, and a credential forgets no offer. */
	must(agents_db_rotate(&f->db, "a", "root", 3600, &version, &f->err));
	assert_int_equal(version, 1);
	assert_string_equal(seen(f, 4).labels, "linux");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_each_rotation_is_a_version_and_an_audit_row),
		TEST(test_seen_is_written_when_it_is_news),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
