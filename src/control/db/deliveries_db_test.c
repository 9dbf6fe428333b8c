#include "control/db/deliveries_db.h"

#include "control/db/db_test.h"

static struct delivery *take(struct fixture *f, size_t wanted)
{
	struct delivery *deliveries = NULL;
	size_t count = 0;

	must(deliveries_db_take(&f->db, 10, f->arena, &deliveries, &count, &f->err));
	assert_int_equal(count, wanted);
	return deliveries;
}

static int accept_delivery(struct fixture *f, const char *id, const char *body)
{
	return deliveries_db_accept(
		&f->db, &(struct new_delivery){.id = id, .event = "workflow_job", .body = str_c(body)}, &f->err);
}

static int accept_once(struct fixture *f, const char *id, const char *nonce)
{
	return deliveries_db_accept(&f->db,
				    &(struct new_delivery){.id = id,
							   .event = "workflow_job",
							   .body = STR("{}"),
							   .nonce = nonce,
							   .nonce_life_ns = 600 * NS_PER_S},
				    &f->err);
}

static void test_a_nonce_counts_once_and_lives_with_its_delivery(void **state)
{
	struct fixture *f = *state;
	int64_t left = 0;

	must(accept_once(f, "guid-1", "n-1"));
	must_be(accept_once(f, "guid-2", "n-1"), DELIVERIES_DB_REPLAYED);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM delivery"), 1);
	/* Another signature over the same delivery is a doubled one, as ever. */
	must_be(accept_once(f, "guid-1", "n-2"), DELIVERIES_DB_DOUBLED);
	/* What is not written takes its nonce with it. */
	fixture_run(f, "CREATE UNIQUE INDEX broken ON delivery (state)");
	assert_true(accept_once(f, "guid-3", "n-3") < 0);
	fixture_run(f, "DROP INDEX broken");
	must(accept_once(f, "guid-3", "n-3"));

	pass_time(f, 599 * NS_PER_S);
	must(deliveries_db_forget_nonces(&f->db, &left, &f->err));
	assert_int_equal(left, 3);
	must_be(accept_once(f, "guid-4", "n-1"), DELIVERIES_DB_REPLAYED);
	pass_time(f, 1 * NS_PER_S);
	/* Over, whether or not somebody has swept. */
	must(accept_once(f, "guid-4", "n-1"));
	must(deliveries_db_forget_nonces(&f->db, &left, &f->err));
	assert_int_equal(left, 1);
}

static void test_a_delivery_is_accepted_once(void **state)
{
	struct fixture *f = *state;

	must(accept_delivery(f, "guid-1", "{}"));
	must_be(accept_delivery(f, "guid-1", "{}"), DELIVERIES_DB_DOUBLED);
	pass_time(f, 1);
	must(accept_delivery(f, "guid-2", "{\"a\":1}"));
	struct delivery *d = take(f, 2);
	assert_string_equal(d[0].id, "guid-1");
	assert_string_equal(d[1].id, "guid-2");
	assert_string_equal(d[1].event, "workflow_job");
	assert_true(str_eq(d[1].body, STR("{\"a\":1}")));
}

static struct github_workflow_job queued_at_github(int64_t job_id)
{
	return (struct github_workflow_job){
		.action = GITHUB_ACTION_QUEUED, .job_id = job_id, .run_attempt = 1, .org_id = 7};
}

static void test_deliveries_end_in_jobs_or_refusals(void **state)
{
	struct fixture *f = *state;
	struct github_workflow_job event = queued_at_github(9001);
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct github_fold news = {.event = &event, .run_as = &spec, .leasable = true};
	const struct delivery_end ends[] = {
		{.id = "guid-1", .fold = news},
		{.id = "guid-2", .refusal = "no nimbus label"},
		{.id = "guid-3", .fold = news}, /* the same news under another id */
	};
	struct deliveries_counts counts = {0};

	must(accept_delivery(f, "guid-1", "{}"));
	must(accept_delivery(f, "guid-2", "{}"));
	must(accept_delivery(f, "guid-3", "{}"));
	must(deliveries_db_end(&f->db, ends, ARRAY_LEN(ends), &f->err));
	(void)take(f, 0);
	must(deliveries_db_counts(&f->db, &counts, &f->err));
	assert_int_equal(counts.waiting, 0);
	assert_int_equal(counts.jobs, 2);
	assert_int_equal(counts.refused, 1);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM delivery WHERE body IS NOT NULL"), 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM delivery WHERE job_id = 1"), 2);
	must_be(accept_delivery(f, "guid-1", "{}"), DELIVERIES_DB_DOUBLED);
	must_be(accept_delivery(f, "guid-2", "{}"), DELIVERIES_DB_DOUBLED);
}

static void test_one_that_fails_takes_the_others_with_it(void **state)
{
	struct fixture *f = *state;
	struct github_workflow_job event = queued_at_github(9001);
	struct github_workflow_job other = queued_at_github(9002);
	struct job_spec spec = fixture_spec(f, "nimbus");
	const struct delivery_end ends[] = {
		{.id = "guid-1", .fold = {.event = &event, .run_as = &spec, .leasable = true}},
		{.id = "guid-2", .fold = {.event = &other, .run_as = &spec, .leasable = true}},
	};

	must(accept_delivery(f, "guid-1", "{}"));
	must(accept_delivery(f, "guid-2", "{}"));
	fixture_run(f, "CREATE UNIQUE INDEX broken ON job_history (n)"); /* room for the first one only */
	assert_true(deliveries_db_end(&f->db, ends, ARRAY_LEN(ends), &f->err) < 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job"), 0);
	assert_int_equal(f->told_count, 0);
	(void)take(f, 2);
}

static void test_a_delivery_that_fails_is_tried_again_and_given_up(void **state)
{
	struct fixture *f = *state;
	struct deliveries_counts counts = {0};

	must(accept_delivery(f, "guid-1", "{}"));
	for (int i = 0; i < 10; i++) {
		assert_int_equal(take(f, 1)[0].tries, i);
		must(deliveries_db_retry(&f->db, "guid-1", "the database was away", &f->err));
		(void)take(f, 0);
		pass_time(f, 3600 * NS_PER_S);
	}
	(void)take(f, 0);
	must(deliveries_db_counts(&f->db, &counts, &f->err));
	assert_int_equal(counts.failed, 1);
	int64_t waiting = -1;
	must(deliveries_db_waiting(&f->db, &waiting, &f->err));
	assert_int_equal(waiting, 0);
	/* Sent again by hand, it has a new chance. */
	must(accept_delivery(f, "guid-1", "{\"again\":1}"));
	assert_true(str_eq(take(f, 1)[0].body, STR("{\"again\":1}")));
}

static void test_another_plane_s_delivery_is_taken_when_it_was_left_standing(void **state)
{
	struct fixture *f = *state;

	must(accept_delivery(f, "guid-1", "{}"));
	f->db.plane = "another";
	(void)take(f, 0);
	must(accept_delivery(f, "guid-2", "{}"));
	assert_string_equal(take(f, 1)[0].id, "guid-2");
	pass_time(f, 2 * NS_PER_S);
	struct delivery *d = take(f, 2);
	assert_string_equal(d[0].id, "guid-2"); /* its own first */
	assert_string_equal(d[1].id, "guid-1");
	/* Who ends it first has it. */
	must(deliveries_db_end(&f->db, &(struct delivery_end){.id = "guid-1", .refusal = "ping"}, 1, &f->err));
	must_be(deliveries_db_end(&f->db, &(struct delivery_end){.id = "guid-1", .refusal = "late"}, 1, &f->err),
		DELIVERIES_DB_ELSEWHERE);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM delivery WHERE result = 'ping'"), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_delivery_is_accepted_once),
		TEST(test_a_nonce_counts_once_and_lives_with_its_delivery),
		TEST(test_deliveries_end_in_jobs_or_refusals),
		TEST(test_one_that_fails_takes_the_others_with_it),
		TEST(test_a_delivery_that_fails_is_tried_again_and_given_up),
		TEST(test_another_plane_s_delivery_is_taken_when_it_was_left_standing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
