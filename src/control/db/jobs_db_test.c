#include "control/db/jobs_db.h"

#include "control/db/db_test.h"

static int submit(struct fixture *f, const struct job_spec *spec, struct job *ret)
{
	return jobs_db_submit(&f->db, spec, f->arena, ret, &f->err);
}

static void test_a_job_comes_back_as_it_was_asked_for(void **state)
{
	struct fixture *f = *state;
	static const char *argv[] = {"sh", "-c", "echo \"$A\"\n", ""};
	struct js_pair env[] = {{"A", "ä=b"}, {"EMPTY", ""}};
	struct js_pair metadata[] = {{"branch", "main"}};
	struct job_spec spec = fixture_spec(f, "linux,nimbus");
	struct job job = {0};

	spec.name = "build";
	spec.argv = (struct js_texts){argv, ARRAY_LEN(argv)};
	spec.env = (struct js_pairs){env, ARRAY_LEN(env)};
	spec.metadata = (struct js_pairs){metadata, ARRAY_LEN(metadata)};
	must(submit(f, &spec, &job));
	job = fixture_get(f, job.id);
	assert_string_equal(job.name, "build");
	assert_string_equal(job.image, "demo");
	assert_string_equal(job.origin, "api");
	assert_string_equal(job.executor, "firecracker");
	assert_int_equal(job.argv.count, ARRAY_LEN(argv));
	for (size_t i = 0; i < ARRAY_LEN(argv); i++)
		assert_string_equal(job.argv.items[i], argv[i]);
	assert_int_equal(job.env.count, 2);
	assert_string_equal(job.env.items[0].value, "ä=b");
	assert_string_equal(job.env.items[1].value, "");
	assert_int_equal(job.labels.count, 2);
	assert_string_equal(job.labels.items[0], "linux");
	assert_int_equal(job.metadata.count, 1);
	assert_int_equal(job.state, JOB_QUEUED);
	assert_int_equal(job.attempt, 1);
	assert_int_equal(job.fence, 0);
	assert_int_equal(job.exit_code, -1);
	assert_int_equal(job.last_seq, -1);
	assert_int_equal(job.created_at, f->now);
	assert_int_equal(job.queued_at, f->now);
	assert_int_equal(job.completed_at, 0);
	assert_null(job.agent_id);
	assert_null(job.reason);
}

static void test_an_idempotency_key_makes_one_job(void **state)
{
	struct fixture *f = *state;
	static const char *other[] = {"false"};
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct job first = {0};
	struct job again = {0};

	spec.idempotency_key = "once";
	must(submit(f, &spec, &first));
	must_be(submit(f, &spec, &again), JOBS_DB_KNOWN);
	assert_int_equal(again.id, first.id);
	spec.org_id = 2;
	must(submit(f, &spec, &again));
	assert_int_not_equal(again.id, first.id);
	spec.org_id = 1;
	spec.argv.items = other;
	must_be(submit(f, &spec, &again), -ERR_CONFLICT);
	assert_non_null(strstr(f->err.msg, "idempotency_key"));
	spec.idempotency_key = NULL;
	must(submit(f, &spec, &again));
	must(submit(f, &spec, &again));
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job"), 4);
	assert_int_equal(f->told_count, 4);
}

static void test_a_secret_without_a_key_is_refused_whole(void **state)
{
	struct fixture *f = *state;
	autoptr(secret) secret = secret_new("{}", 2);
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct job job = {0};

	f->db.sealer = NULL;
	spec.secret_env = secret;
	must_be(submit(f, &spec, &job), -ERR_UNSUPPORTED);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job"), 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM queue"), 0);
	assert_int_equal(f->told_count, 0);
}

static void test_what_is_not_there(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	struct job_history *rows = NULL;
	size_t count = 0;

	must_be(jobs_db_get(&f->db, 7, f->arena, &job, &f->err), JOBS_DB_MISSING);
	must_be(jobs_db_cancel(&f->db, 7, f->arena, &job, &f->err), JOBS_DB_MISSING);
	must_be(jobs_db_history(&f->db, 7, f->arena, &rows, &count, &f->err), JOBS_DB_MISSING);
}

/* --- recent --- */

static void mark(struct fixture *f, int64_t id, const char *key, const char *value)
{
	struct js_pair pair = {key, value};
	struct job job = {0};

	must(fixture_lease(f, "a", "linux,gpu,one", false, &job));
	assert_int_equal(job.id, id);
	must(leases_db_report(&f->db,
			      &(struct job_report){.job_id = id,
						   .agent_id = "a",
						   .fence = job.fence,
						   .state = JOB_FAILED,
						   .exit_code = 1,
						   .last_seq = 0,
						   .metadata = {&pair, 1}},
			      &f->err));
}

static void test_filters_are_applied_before_the_limit(void **state)
{
	struct fixture *f = *state;
	static const struct {
		struct jobs_filter filter;
		int64_t wanted[4]; /* which of the jobs made below, last changed first */
	} cases[] = {
		{{.limit = 1}, {4}},
		{{.limit = 10}, {4, 3, 2, 1}},
		{{.limit = 1, .org_id = 2}, {3}},
		{{.limit = 10, .org_id = 1}, {4, 2, 1}},
		{{.limit = 10, .agent_id = "nobody"}, {0}},
		{{.limit = 1, .state = "failed"}, {1}},
		{{.limit = 10, .state = "queued"}, {4, 3, 2}},
		{{.limit = 1, .label = "gpu"}, {2}},
		{{.limit = 10, .label = "gp"}, {0}},
		{{.limit = 10, .meta_key = "branch"}, {1}},
		{{.limit = 10, .meta_value = "main"}, {1}},
		{{.limit = 10, .meta_key = "branch", .meta_value = "main"}, {1}},
		{{.limit = 10, .meta_key = "branch", .meta_value = "dev"}, {0}},
		{{.limit = 10, .meta_key = "main"}, {0}},
		{{.limit = 10, .org_id = 1, .state = "queued", .label = "gpu"}, {2}},
		{{.limit = 10, .org_id = 2, .state = "queued", .label = "gpu"}, {0}},
	};
	struct job_spec spec = fixture_spec(f, "other");
	struct job job = {0};

	int64_t first = fixture_submit(f, "linux,one");
	mark(f, first, "branch", "main");
	pass_time(f, 1);
	(void)fixture_submit(f, "gpu,linux");
	pass_time(f, 1);
	spec.org_id = 2;
	must(submit(f, &spec, &job));
	pass_time(f, 1);
	(void)fixture_submit(f, "nimbus");
	struct jobs_filter late = {.limit = 10, .within_ns = 1};
	struct job *newest = NULL;
	size_t newer = 0;
	must(jobs_db_recent(&f->db, &late, f->arena, &newest, &newer, &f->err));
	assert_int_equal(newer, 1);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct job *jobs = NULL;
		size_t count = 0;
		size_t wanted = 0;
		must(jobs_db_recent(&f->db, &cases[i].filter, f->arena, &jobs, &count, &f->err));
		while (wanted < ARRAY_LEN(cases[i].wanted) && cases[i].wanted[wanted] != 0)
			wanted++;
		if (count != wanted)
			fail_msg("case %zu: %zu jobs instead of %zu", i, count, wanted);
		for (size_t k = 0; k < count; k++)
			assert_int_equal(jobs[k].id, cases[i].wanted[k]);
	}
}

static void test_counts(void **state)
{
	struct fixture *f = *state;
	struct jobs_counts counts = {0};
	struct job job = {0};

	must(jobs_db_counts(&f->db, 0, &counts, &f->err));
	assert_int_equal(counts.queue_length, 0);
	assert_int_equal(counts.oldest_queued_at, 0);
	(void)fixture_submit(f, "nimbus");
	pass_time(f, NS_PER_S);
	(void)fixture_submit(f, "nimbus");
	(void)fixture_submit(f, "nimbus");
	must(fixture_lease(f, "a", "", false, &job));
	struct jobs_filter own = {.limit = 10, .agent_id = "a"};
	struct job *jobs = NULL;
	size_t count = 0;
	must(jobs_db_recent(&f->db, &own, f->arena, &jobs, &count, &f->err));
	assert_int_equal(count, 1);
	assert_int_equal(jobs[0].id, job.id);
	must(jobs_db_counts(&f->db, 0, &counts, &f->err));
	assert_int_equal(counts.queue_length, 2);
	assert_int_equal(counts.oldest_queued_at, f->now);
	assert_int_equal(counts.by_state[JOB_QUEUED], 2);
	assert_int_equal(counts.by_state[JOB_LEASED], 1);
	assert_int_equal(counts.by_state[JOB_DEAD], 0);

	must(jobs_db_counts(&f->db, job.org_id, &counts, &f->err));
	assert_int_equal(counts.queue_length, 2);
	assert_int_equal(counts.oldest_queued_at, f->now);
	assert_int_equal(counts.by_state[JOB_LEASED], 1);
	must(jobs_db_counts(&f->db, job.org_id + 1, &counts, &f->err));
	assert_int_equal(counts.queue_length, 0);
	assert_int_equal(counts.oldest_queued_at, 0);
	assert_int_equal(counts.by_state[JOB_LEASED], 0);
}

static void test_history_tells_the_whole_life(void **state)
{
	struct fixture *f = *state;
	struct job job = {0};
	struct job_history *rows = NULL;
	size_t count = 0;
	int64_t expired = 0;
	static const struct {
		const char *from, *to, *agent, *reason;
		int64_t attempt, fence;
	} wanted[] = {
		{NULL, "queued", NULL, NULL, 1, 0},
		{"queued", "leased", "a", NULL, 1, 1},
		{"leased", "queued", "a", "lease_expired", 2, 1},
		{"queued", "cancelled", NULL, "cancelled", 2, 1},
	};

	int64_t id = fixture_submit(f, "nimbus");
	must(fixture_lease(f, "a", "", false, &job));
	pass_time(f, 301 * NS_PER_S);
	must(leases_db_expire(&f->db, &expired, &f->err));
	must(jobs_db_cancel(&f->db, id, f->arena, &job, &f->err));
	must(jobs_db_history(&f->db, id, f->arena, &rows, &count, &f->err));
	assert_int_equal(count, ARRAY_LEN(wanted));
	for (size_t i = 0; i < count; i++) {
		assert_string_equal(rows[i].from != NULL ? rows[i].from : "-",
				    wanted[i].from != NULL ? wanted[i].from : "-");
		assert_string_equal(rows[i].to, wanted[i].to);
		assert_string_equal(rows[i].agent_id != NULL ? rows[i].agent_id : "-",
				    wanted[i].agent != NULL ? wanted[i].agent : "-");
		assert_string_equal(rows[i].reason != NULL ? rows[i].reason : "-",
				    wanted[i].reason != NULL ? wanted[i].reason : "-");
		assert_int_equal(rows[i].attempt, wanted[i].attempt);
		assert_int_equal(rows[i].fence, wanted[i].fence);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_job_comes_back_as_it_was_asked_for),
		TEST(test_an_idempotency_key_makes_one_job),
		TEST(test_a_secret_without_a_key_is_refused_whole),
		TEST(test_what_is_not_there),
		TEST(test_filters_are_applied_before_the_limit),
		TEST(test_counts),
		TEST(test_history_tells_the_whole_life),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
