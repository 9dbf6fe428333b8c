#include "control/db/jobs_db.h"

#include "control/db/db_test.h"
#include "control/db/deliveries_db.h"

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

	must(jobs_db_counts(&f->db, &counts, &f->err));
	assert_int_equal(counts.queue_length, 0);
	assert_int_equal(counts.oldest_queued_at, 0);
	(void)fixture_submit(f, "nimbus");
	pass_time(f, NS_PER_S);
	(void)fixture_submit(f, "nimbus");
	(void)fixture_submit(f, "nimbus");
	must(fixture_lease(f, "a", "", false, &job));
	must(jobs_db_counts(&f->db, &counts, &f->err));
	assert_int_equal(counts.queue_length, 2);
	assert_int_equal(counts.oldest_queued_at, f->now);
	assert_int_equal(counts.by_state[JOB_QUEUED], 2);
	assert_int_equal(counts.by_state[JOB_LEASED], 1);
	assert_int_equal(counts.by_state[JOB_DEAD], 0);
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

/* --- GitHub --- */

static struct github_workflow_job event_of(enum github_action action, const char *conclusion)
{
	return (struct github_workflow_job){.action = action,
					    .job_id = 9001,
					    .run_id = 5,
					    .run_attempt = 1,
					    .conclusion = conclusion,
					    .repo_id = 42,
					    .repo_full_name = "octo/hello",
					    .org_id = 7};
}

static int fold(struct fixture *f, const struct github_workflow_job *event, bool leasable, struct job *ret)
{
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct github_fold in = {.event = event, .run_as = &spec, .leasable = leasable};

	spec.org_id = event->org_id;
	return jobs_db_github(&f->db, &in, f->arena, ret, &f->err);
}

/* Whatever order they come in, and however often: the job ends up where the furthest event puts it. */
static void check_orders(struct fixture *f, const struct github_workflow_job *events, size_t count, bool leasable,
			 enum job_state state, const char *reason)
{
	size_t orders = 1;

	for (size_t i = 2; i <= count; i++)
		orders *= i;
	for (size_t order = 0; order < orders * count; order++) {
		size_t left[4] = {0, 1, 2, 3};
		size_t rest = order / count;
		struct job job = {0};
		for (size_t n = count; n > 0; n--) {
			size_t pick = rest % n;
			rest /= n;
			struct github_workflow_job event = events[left[pick]];
			event.run_attempt = (int64_t)order + 1;
			assert_true(fold(f, &event, leasable, &job) >= 0);
			if (left[pick] == order % count) /* this one is doubled */
				must_be(fold(f, &event, leasable, &job), JOBS_DB_STALE);
			for (size_t k = pick; k + 1 < n; k++)
				left[k] = left[k + 1];
		}
		job = fixture_get(f, job.id);
		if (job.state != state)
			fail_msg("order %zu: %s", order, job_state_text(job.state));
		assert_string_equal(job.reason != NULL ? job.reason : "-", reason);
	}
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job"), orders * count);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM queue"), state == JOB_QUEUED ? orders * count : 0);
}

static void test_githubs_events_in_any_order(void **state)
{
	static const struct {
		enum github_action last;
		const char *conclusion;
		bool leasable;
		enum job_state state;
		const char *reason;
	} cases[] = {
		{GITHUB_ACTION_WAITING, NULL, true, JOB_PARKED, "github_waiting"},
		{GITHUB_ACTION_QUEUED, NULL, true, JOB_QUEUED, "-"},
		{GITHUB_ACTION_QUEUED, NULL, false, JOB_PARKED, "github_app_not_configured"},
		{GITHUB_ACTION_IN_PROGRESS, NULL, true, JOB_PARKED, "github_in_progress"},
		{GITHUB_ACTION_IN_PROGRESS, NULL, false, JOB_PARKED, "github_in_progress"},
		{GITHUB_ACTION_COMPLETED, "success", true, JOB_SUCCEEDED, "github_completed"},
		{GITHUB_ACTION_COMPLETED, "success", false, JOB_SUCCEEDED, "github_completed"},
		{GITHUB_ACTION_COMPLETED, "failure", true, JOB_FAILED, "github_completed"},
		{GITHUB_ACTION_COMPLETED, "skipped", true, JOB_CANCELLED, "github_completed"},
		{GITHUB_ACTION_COMPLETED, "timed_out", true, JOB_TIMED_OUT, "github_completed"},
		{GITHUB_ACTION_COMPLETED, NULL, true, JOB_FAILED, "github_completed"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		void *own = NULL;
		struct github_workflow_job events[4];
		size_t count = 0;
		for (enum github_action a = GITHUB_ACTION_WAITING; a <= cases[i].last; a++)
			events[count++] = event_of(a, a == GITHUB_ACTION_COMPLETED ? cases[i].conclusion : NULL);
		assert_int_equal(fixture_setup(&own), 0);
		check_orders(own, events, count, cases[i].leasable, cases[i].state, cases[i].reason);
		assert_int_equal(fixture_teardown(&own), 0);
	}
}

static void test_githubs_facts_are_kept(void **state)
{
	struct fixture *f = *state;
	struct github_workflow_job event = event_of(GITHUB_ACTION_QUEUED, NULL);
	struct job job = {0};

	must(fold(f, &event, true, &job));
	int64_t first = job.id;
	event.run_attempt = 2; /* run again at GitHub: another job */
	must(fold(f, &event, true, &job));
	assert_int_not_equal(job.id, first);
	int64_t second = job.id;
	job = fixture_get(f, 9001); /* by GitHub's id: the last run */
	assert_int_equal(job.id, second);
	assert_int_equal(job.github_job_id, 9001);
	assert_int_equal(job.run_id, 5);
	assert_int_equal(job.run_attempt, 2);
	assert_int_equal(job.org_id, 7);
	assert_int_equal(job.repo_id, 42);
	assert_string_equal(job.repo_full_name, "octo/hello");
	assert_string_equal(job.origin, "github");
}

static void test_github_does_not_end_what_runs_here(void **state)
{
	struct fixture *f = *state;
	struct github_workflow_job queued = event_of(GITHUB_ACTION_QUEUED, NULL);
	struct github_workflow_job progress = event_of(GITHUB_ACTION_IN_PROGRESS, NULL);
	struct github_workflow_job cancelled = event_of(GITHUB_ACTION_COMPLETED, "cancelled");
	struct job job = {0};

	must(fold(f, &queued, true, &job));
	must(fixture_lease(f, "a", "", false, &job));
	must(fold(f, &progress, true, &job));
	assert_int_equal(job.state, JOB_LEASED);
	must(fold(f, &cancelled, true, &job));
	assert_int_equal(job.state, JOB_LEASED);
	assert_int_not_equal(job.cancel_requested_at, 0);
	assert_string_equal(job.conclusion, "cancelled");
	assert_int_equal(f->told[f->told_count - 1].type, JOB_EVENT_CANCEL_REQUESTED);
}

/* --- deliveries --- */

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
	return deliveries_db_accept(&f->db, id, "workflow_job", str_c(body), &f->err);
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

static void test_a_delivery_ends_in_a_job_or_a_refusal(void **state)
{
	struct fixture *f = *state;
	struct github_workflow_job event = event_of(GITHUB_ACTION_QUEUED, NULL);
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct github_fold in = {.event = &event, .run_as = &spec, .delivery_id = "guid-1", .leasable = true};
	struct deliveries_counts counts = {0};
	struct job job = {0};

	must(accept_delivery(f, "guid-1", "{}"));
	must(accept_delivery(f, "guid-2", "{}"));
	must(accept_delivery(f, "guid-3", "{}"));
	must(jobs_db_github(&f->db, &in, f->arena, &job, &f->err));
	in.delivery_id = "guid-3"; /* the same news under another id */
	must_be(jobs_db_github(&f->db, &in, f->arena, &job, &f->err), JOBS_DB_STALE);
	must(deliveries_db_refuse(&f->db, "guid-2", "no nimbus label", &f->err));
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
	/* Sent again by hand, it has a new chance. */
	must(accept_delivery(f, "guid-1", "{\"again\":1}"));
	assert_true(str_eq(take(f, 1)[0].body, STR("{\"again\":1}")));
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
		cmocka_unit_test(test_githubs_events_in_any_order),
		TEST(test_githubs_facts_are_kept),
		TEST(test_github_does_not_end_what_runs_here),
		TEST(test_a_delivery_is_accepted_once),
		TEST(test_a_delivery_ends_in_a_job_or_a_refusal),
		TEST(test_a_delivery_that_fails_is_tried_again_and_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
