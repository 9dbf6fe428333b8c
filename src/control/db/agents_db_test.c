#include "control/db/agents_db.h"

#include "control/db/db_test.h"

static int64_t version_of(struct fixture *f, const char *agent)
{
	int64_t version = -1;

	must(agents_db_token_version(&f->db, agent, &version, &f->err));
	return version;
}

static int rotate(struct fixture *f, const char *agent_id, const char *by, int64_t ttl_s, int64_t *ret_version)
{
	const struct agent_rotation rotation = {.agent_id = agent_id,
						.rotated_by = by,
						.ttl_s = ttl_s,
						.limit = {.limit = 2, .interval_ns = 60 * NS_PER_S}};
	int64_t wait_ns = 0;
	int rc = agents_db_rotate(&f->db, &rotation, ret_version, &wait_ns, &f->err);

	if (rc == AGENTS_DB_LIMITED)
		*ret_version = -wait_ns;
	return rc;
}

/* Each admin has a rate of his own, and what is over it leaves no trace. */
static void test_rotations_are_limited_by_subject(void **state)
{
	struct fixture *f = *state;
	int64_t version = 0;

	must(rotate(f, "a", "root", 60, &version));
	must(rotate(f, "a", "root", 60, &version));
	must_be(rotate(f, "a", "root", 60, &version), AGENTS_DB_LIMITED);
	assert_int_equal(version, -30 * NS_PER_S);
	must_be(rotate(f, "b", "root", 60, &version), AGENTS_DB_LIMITED);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM agent_token_audit"), 2);
	assert_int_equal(fixture_number(f, "SELECT token_version FROM agent WHERE agent_id = 'a'"), 2);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM agent"), 1);
	must(rotate(f, "b", "ops", 60, &version));
	assert_int_equal(version, 1);
	pass_time(f, 30 * NS_PER_S);
	must(rotate(f, "a", "root", 60, &version));
	assert_int_equal(version, 3);
}

static void test_each_rotation_is_a_version_and_an_audit_row(void **state)
{
	struct fixture *f = *state;
	struct agent_audit *rows = NULL;
	struct agent *agents = NULL;
	size_t count = 0;
	int64_t version = 0;

	assert_int_equal(version_of(f, "a"), 0);
	must(rotate(f, "a", "root", 3600, &version));
	assert_int_equal(version, 1);
	must(rotate(f, "b", "root", 60, &version));
	pass_time(f, NS_PER_S);
	must(rotate(f, "a", "ops", 7200, &version));
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
	must(rotate(f, "a", "root", 3600, &version));
	assert_int_equal(version, 1);
	assert_string_equal(seen(f, 4).labels, "linux");
}

static void test_a_drained_agent_gets_no_lease(void **state)
{
	struct fixture *f = *state;
	struct agent agent = {0};
	struct job job = {0};
	int64_t count = 0;

	must_be(agents_db_drain(&f->db, "a", NULL, &f->err), AGENTS_DB_MISSING);
	must_be(agents_db_get(&f->db, "a", f->arena, &agent, &f->err), AGENTS_DB_MISSING);
	(void)seen(f, 2);
	(void)fixture_submit(f, "linux");
	(void)fixture_submit(f, "linux");
	must(fixture_lease(f, "a", "linux", false, &job));
	must(agents_db_drain(&f->db, "a", "a new disk", &f->err));
	must_be(fixture_lease(f, "a", "linux", false, &job), LEASES_DB_DRAINING);
	int64_t since = f->now;
	pass_time(f, 60 * NS_PER_S);
	must(agents_db_drain(&f->db, "a", "still", &f->err));
	must(agents_db_get(&f->db, "a", f->arena, &agent, &f->err));
	assert_int_equal(agent.draining_at, since);
	assert_string_equal(agent.drain_reason, "still");
	assert_int_equal(agent.jobs, 1);
	assert_true(agent.here);
	must(agents_db_draining(&f->db, &count, &f->err));
	assert_int_equal(count, 1);
	/* Asking for work does not end it. */
	assert_int_equal(seen(f, 4).draining_at, since);
	must_be(fixture_lease(f, "a", "linux", false, &job), LEASES_DB_DRAINING);
	must(fixture_lease(f, "b", "linux", false, &job));
	(void)fixture_submit(f, "linux");
	must(agents_db_resume(&f->db, "a", &f->err));
	must(fixture_lease(f, "a", "linux", false, &job));
	pass_time(f, AGENT_GONE_NS + 1);
	must(agents_db_get(&f->db, "a", f->arena, &agent, &f->err));
	assert_false(agent.here);
	assert_null(agent.drain_reason);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rotations_are_limited_by_subject),
		TEST(test_each_rotation_is_a_version_and_an_audit_row),
		TEST(test_seen_is_written_when_it_is_news),
		TEST(test_a_drained_agent_gets_no_lease),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
