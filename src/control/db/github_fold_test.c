#include "control/db/github_fold.h"

#include "control/db/admission.h"
#include "control/db/db_test.h"

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

struct folding {
	struct github_fold in;
	int64_t job_id;
};

static int fold_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct folding *folding = ctx;
	struct job job = {0};
	int rc = github_fold(t, &folding->in, &job, err);

	folding->job_id = job.id;
	return rc;
}

static int fold(struct fixture *f, const struct github_workflow_job *event, bool leasable, struct job *ret)
{
	struct job_spec spec = fixture_spec(f, "nimbus");
	struct folding folding = {.in = {.event = event, .run_as = &spec, .leasable = leasable}};

	spec.org_id = event->org_id;
	int rc = control_write(&f->db, fold_fn, &folding, &f->err);
	if (rc >= 0)
		*ret = fixture_get(f, folding.job_id);
	return rc;
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
				must_be(fold(f, &event, leasable, &job), GITHUB_FOLD_STALE);
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

/* Over the rate a job waits, for as long as GitHub says that it waits for us. */
static void test_a_job_that_the_rate_holds_back_follows_github(void **state)
{
	struct fixture *f = *state;
	struct github_workflow_job before = event_of(GITHUB_ACTION_WAITING, NULL);
	struct github_workflow_job queued = event_of(GITHUB_ACTION_QUEUED, NULL);
	struct github_workflow_job elsewhere = event_of(GITHUB_ACTION_IN_PROGRESS, NULL);
	struct job job = {0};
	int64_t count = 0;

	f->db.org_jobs = (struct gcra){.limit = 1, .interval_ns = 60 * NS_PER_S};
	queued.run_attempt = 9;
	must(fold(f, &queued, true, &job));
	assert_int_equal(job.state, JOB_QUEUED);
	must(fold(f, &before, true, &job));
	assert_string_equal(job.reason, "github_waiting");
	queued.run_attempt = 1;
	must(fold(f, &queued, true, &job));
	assert_int_equal(job.state, JOB_PARKED);
	assert_string_equal(job.reason, "org_rate_limit");
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM held_job"), 1);
	must(fold(f, &elsewhere, true, &job));
	assert_string_equal(job.reason, "github_in_progress");
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM held_job"), 0);
	pass_time(f, 60 * NS_PER_S);
	must(admission_let_in(&f->db, &count, &f->err));
	assert_int_equal(count, 0);
	assert_int_equal(fixture_get(f, job.id).state, JOB_PARKED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_githubs_events_in_any_order),
		TEST(test_githubs_facts_are_kept),
		TEST(test_github_does_not_end_what_runs_here),
		TEST(test_a_job_that_the_rate_holds_back_follows_github),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
