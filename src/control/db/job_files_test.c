/*
 * A day and more of jobs with files, in a second: the clock is the test's. Inputs come at once, late or never; outputs
 * stay for a day after their job's end. After each step the database must say what a model without SQL says.
 */
#include "control/db/job_files.h"

#include <string.h>

#include "control/db/db_test.h"

#define MINUTE_NS (60 * NS_PER_S)
#define STEP_NS (20 * MINUTE_NS)
#define WAIT_NS (60 * MINUTE_NS)
#define KEEP_NS (24 * 60 * MINUTE_NS)
enum { HOURS = 30, STEPS = HOURS * 3 };

static const char digest[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/* --- one job --- */

static int64_t submit(struct fixture *f)
{
	struct job_spec spec = fixture_spec(f, "linux");
	struct job job = {0};

	spec.extras = "{\"inputs\":[\"/in\",\"/more\"],\"outputs\":[\"/out\"]}";
	spec.waits_for_files = true;
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	assert_int_equal(job.state, JOB_PARKED);
	return job.id;
}

static int add(struct fixture *f, int64_t job_id, enum job_file_kind kind, int64_t n, const char **ret_replaced)
{
	const struct job_file file = {
		.job_id = job_id, .kind = kind, .n = n, .attempt = 1, .blob = "blob", .size = 5, .sha256 = digest};
	struct job job = {0};

	return job_files_add(&f->db, &file, f->arena, &job, ret_replaced, &f->err);
}

static void send_inputs(struct fixture *f, int64_t job_id)
{
	const char *replaced = NULL;

	must(add(f, job_id, JOB_FILE_INPUT, 0, &replaced));
	assert_int_equal(fixture_get(f, job_id).state, JOB_PARKED);
	must(add(f, job_id, JOB_FILE_INPUT, 1, &replaced));
	assert_int_equal(fixture_get(f, job_id).state, JOB_QUEUED);
}

static void report(struct fixture *f, const struct job *job, enum job_state state)
{
	must(leases_db_report(&f->db,
			      &(struct job_report){.job_id = job->id,
						   .agent_id = "a",
						   .fence = job->fence,
						   .state = state,
						   .exit_code = -1,
						   .last_seq = -1,
						   .ttl_ns = 300 * NS_PER_S},
			      &f->err));
}

static void run(struct fixture *f, int64_t job_id)
{
	const char *replaced = NULL;
	struct job job = {0};

	must(fixture_lease(f, "a", "linux", false, &job));
	assert_int_equal(job.id, job_id);
	report(f, &job, JOB_RUNNING);
	must(add(f, job_id, JOB_FILE_OUTPUT, 0, &replaced));
	report(f, &job, JOB_SUCCEEDED);
}

static void files_come_once_and_in_time(void **state)
{
	struct fixture *f = *state;
	int64_t id = submit(f);
	const char *replaced = NULL;
	struct job_file found = {0};

	assert_int_equal(add(f, id, JOB_FILE_INPUT, 2, &replaced), -ERR_NOT_FOUND);
	assert_int_equal(add(f, id, JOB_FILE_OUTPUT, 0, &replaced), -ERR_CONFLICT);
	assert_int_equal(add(f, id + 1, JOB_FILE_INPUT, 0, &replaced), -ERR_NOT_FOUND);
	must(add(f, id, JOB_FILE_INPUT, 0, &replaced));
	assert_null(replaced);
	must(add(f, id, JOB_FILE_INPUT, 0, &replaced));
	assert_string_equal(replaced, "blob");
	assert_int_equal(job_files_get(&f->db, id, JOB_FILE_INPUT, 1, f->arena, &found, &f->err), JOB_FILES_NONE);
	must(job_files_get(&f->db, id, JOB_FILE_INPUT, 0, f->arena, &found, &f->err));
	assert_int_equal(found.size, 5);
	assert_string_equal(found.sha256, digest);
	must(add(f, id, JOB_FILE_INPUT, 1, &replaced));
	assert_int_equal(add(f, id, JOB_FILE_INPUT, 1, &replaced), -ERR_CONFLICT);
	run(f, id);
	assert_int_equal(add(f, id, JOB_FILE_OUTPUT, 0, &replaced), -ERR_CONFLICT);
}

/* --- a day --- */

enum fate { SENDS_AT_ONCE, SENDS_LATE, SENDS_NEVER, FATES };

struct modelled {
	int64_t id;
	enum fate fate;
	int64_t created_at;
	int64_t ended_at; /* 0: not yet */
	enum job_state state;
	bool gone; /* all that it had */
};

static void send_and_run(struct fixture *f, struct modelled *m)
{
	send_inputs(f, m->id);
	run(f, m->id);
	m->state = JOB_SUCCEEDED;
	m->ended_at = f->now;
}

static void begin(struct fixture *f, struct modelled *m, int step)
{
	*m = (struct modelled){.id = submit(f), .fate = step % FATES, .created_at = f->now, .state = JOB_PARKED};
	if (m->fate == SENDS_AT_ONCE)
		send_and_run(f, m);
}

/* In time, if only just: the sweep takes what is older than the wait. */
static void go_on(struct fixture *f, struct modelled *m)
{
	if (m->fate == SENDS_LATE && m->state == JOB_PARKED && f->now - m->created_at == WAIT_NS)
		send_and_run(f, m);
}

static int64_t expire(struct fixture *f, struct modelled *m, int count)
{
	int64_t wanted = 0;

	for (int i = 0; i < count; i++) {
		if (m[i].state != JOB_PARKED || m[i].created_at >= f->now - WAIT_NS)
			continue;
		m[i].state = JOB_CANCELLED;
		m[i].ended_at = f->now;
		wanted++;
	}
	return wanted;
}

static void check(struct fixture *f, struct modelled *m)
{
	bool ended = m->ended_at != 0;
	bool over = ended && m->ended_at + KEEP_NS < f->now;

	assert_int_equal(fixture_get(f, m->id).state, m->state);
	assert_int_equal(job_files_is_over(&f->db, m->id, JOB_FILE_INPUT, KEEP_NS, &f->err), ended);
	assert_int_equal(job_files_is_over(&f->db, m->id, JOB_FILE_OUTPUT, KEEP_NS, &f->err), over);
	m->gone = over;
}

static void a_day_keeps_what_is_wanted_and_no_longer(void **state)
{
	struct fixture *f = *state;
	struct modelled jobs[STEPS];
	int64_t cancelled = 0;
	int gone = 0;

	for (int step = 0; step < STEPS; step++) {
		int64_t count = 0;
		begin(f, &jobs[step], step);
		for (int i = 0; i < step; i++)
			go_on(f, &jobs[i]);
		must(job_files_expire(&f->db, WAIT_NS, &count, &f->err));
		assert_int_equal(count, expire(f, jobs, step + 1));
		cancelled += count;
		for (int i = 0; i <= step; i++) {
			if (!jobs[i].gone)
				check(f, &jobs[i]);
		}
		pass_time(f, STEP_NS);
	}
	for (int i = 0; i < STEPS; i++)
		gone += jobs[i].gone;
	/* Every third job, but those of the last hour and a bit; and what ended six hours before the end is gone. */
	assert_in_range(cancelled, STEPS / FATES - 2, STEPS / FATES);
	assert_true(gone > 0 && gone < STEPS / 2);
	/* Nobody knows the job of a file: it may go. */
	assert_int_equal(job_files_is_over(&f->db, 999999, JOB_FILE_OUTPUT, KEEP_NS, &f->err), 1);
	assert_string_equal(fixture_get(f, jobs[SENDS_NEVER].id).reason, JOB_FILES_MISSING_REASON);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(files_come_once_and_in_time, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_day_keeps_what_is_wanted_and_no_longer, fixture_setup,
						fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
