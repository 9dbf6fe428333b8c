/*
 * A day and more of jobs with files, in a second: the clock is the test's. Inputs come at once, late, half or never;
 * outputs stay for a day after their job's end. After each step the database must say what a model without SQL says.
 */
#include "control/db/job_files.h"

#include <string.h>

#include "control/db/db_test.h"

#define MINUTE_NS (60 * NS_PER_S)
#define STEP_NS (20 * MINUTE_NS)
#define WAIT_NS (60 * MINUTE_NS)
#define KEEP_NS (24 * 60 * MINUTE_NS)
#define KEEP_INPUT_NS (6 * 60 * MINUTE_NS)
enum { HOURS = 30, STEPS = HOURS * 3 };

static const char digest[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static const struct job_file_rule rule = {{[JOB_FILE_INPUT] = KEEP_INPUT_NS, [JOB_FILE_OUTPUT] = KEEP_NS}};
static uint64_t blobs_made;

/* --- one job --- */

static int64_t submit_with(struct fixture *f, const char *extras)
{
	struct job_spec spec = fixture_spec(f, "linux");
	struct job job = {0};

	spec.extras = extras;
	spec.waits_for_files = true;
	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	assert_int_equal(job.state, JOB_PARKED);
	return job.id;
}

static int64_t submit(struct fixture *f)
{
	return submit_with(f, "{\"inputs\":[\"/in\",\"/more\"],\"outputs\":[\"/out\"]}");
}

/* Nobody can ask for what it was sent again. */
static int64_t submit_session(struct fixture *f)
{
	return submit_with(f, "{\"inputs\":[\"/in\",\"/more\"],\"outputs\":[\"/out\"],\"session\":true}");
}

static int add(struct fixture *f, int64_t job_id, enum job_file_kind kind, int64_t n, const char **ret_replaced)
{
	char name[JOB_FILE_NAME_SIZE];
	const struct job_file file = {
		.job_id = job_id, .kind = kind, .n = n, .attempt = 1, .blob = name, .size = 5, .sha256 = digest};
	struct job job = {0};

	job_file_name(&(struct job_file_place){job_id, kind, n}, ++blobs_made, name);
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
	must(job_files_get(&f->db, id, JOB_FILE_INPUT, 0, f->arena, &found, &f->err));
	must(add(f, id, JOB_FILE_INPUT, 0, &replaced));
	assert_string_equal(replaced, found.blob);
	assert_int_equal(job_files_get(&f->db, id, JOB_FILE_INPUT, 1, f->arena, &found, &f->err), JOB_FILES_NONE);
	must(job_files_get(&f->db, id, JOB_FILE_INPUT, 0, f->arena, &found, &f->err));
	assert_int_equal(found.size, 5);
	assert_string_equal(found.sha256, digest);
	must(add(f, id, JOB_FILE_INPUT, 1, &replaced));
	assert_int_equal(add(f, id, JOB_FILE_INPUT, 1, &replaced), -ERR_CONFLICT);
	run(f, id);
	assert_int_equal(add(f, id, JOB_FILE_OUTPUT, 0, &replaced), -ERR_CONFLICT);
}

/* --- rows that are over --- */

static int64_t count_rows(struct fixture *f)
{
	return fixture_number(f, "SELECT COUNT(*) FROM job_file");
}

/* What the control plane does page by page, all at once. Gives how many rows went. */
static size_t forget_all(struct fixture *f)
{
	struct job_file_place walk = {0};
	size_t forgotten = 0;

	do {
		struct job_file_names names;
		must(job_files_forget(&f->db, &rule, &walk, f->arena, &names, &f->err));
		assert_true(names.count <= JOB_FILES_PAGE);
		forgotten += names.count;
	} while (walk.job_id != 0);
	return forgotten;
}

static void one_job_is_put_in_order_alone(void **state)
{
	struct fixture *f = *state;
	int64_t id = submit_session(f);
	struct job_file_names names;
	struct job_file input = {0};

	send_inputs(f, id);
	must(job_files_get(&f->db, id, JOB_FILE_INPUT, 1, f->arena, &input, &f->err));
	must(job_files_forget_of(&f->db, &rule, id, f->arena, &names, &f->err));
	assert_int_equal(names.count, 0);
	run(f, id);
	int64_t other = submit_session(f);
	send_inputs(f, other);
	run(f, other);
	must(job_files_forget_of(&f->db, &rule, id, f->arena, &names, &f->err));
	assert_int_equal(names.count, 2);
	assert_string_equal(names.items[1], input.blob);
	must_be(job_files_get(&f->db, id, JOB_FILE_INPUT, 0, f->arena, &input, &f->err), JOB_FILES_NONE);
	must(job_files_get(&f->db, id, JOB_FILE_OUTPUT, 0, f->arena, &input, &f->err));
	assert_int_equal(count_rows(f), 1 + 3);
	/* Once more finds nothing more. */
	must(job_files_forget_of(&f->db, &rule, id, f->arena, &names, &f->err));
	assert_int_equal(names.count, 0);
}

static void inputs_are_kept_for_a_retry(void **state)
{
	struct fixture *f = *state;
	static const struct job_file_rule disk_is_short = {{[JOB_FILE_OUTPUT] = KEEP_NS}};
	struct job_file_names names;
	int64_t id = submit(f);

	send_inputs(f, id);
	must(job_files_forget_of(&f->db, &disk_is_short, id, f->arena, &names, &f->err));
	assert_int_equal(names.count, 0);
	run(f, id);
	pass_time(f, KEEP_INPUT_NS - 1);
	must(job_files_forget_of(&f->db, &rule, id, f->arena, &names, &f->err));
	assert_int_equal(names.count, 0);
	must(job_files_forget_of(&f->db, &disk_is_short, id, f->arena, &names, &f->err));
	assert_int_equal(names.count, 2);
	assert_int_equal(count_rows(f), 1);
}

/* Rows that nobody has the job of, around those of one that waits, and of what a later program may know. */
static void a_walk_takes_page_after_page_and_leaves_what_is_wanted(void **state)
{
	struct fixture *f = *state;
	enum { PAGES = 3, LOST = PAGES * JOB_FILES_PAGE };
	struct job_file_place walk = {0};
	struct job_file_names names;
	const char *replaced = NULL;
	int64_t id = submit(f);

	must(add(f, id, JOB_FILE_INPUT, 0, &replaced));
	fixture_run(f, arena_printf(f->arena,
				    "WITH RECURSIVE lost (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM lost WHERE"
				    " id < %d) INSERT INTO job_file (job_id, kind, n, blob, size, sha256, stored_at)"
				    " SELECT 1000 + id, 'output', 0, 'lost', 1, '', 0 FROM lost",
				    LOST));
	fixture_run(f, "INSERT INTO job_file (job_id, kind, n, blob, size, sha256, stored_at)"
		       " VALUES (1500, 'later', 0, 'later', 1, '', 0)");
	assert_int_equal(count_rows(f), 1 + LOST + 1);
	must(job_files_forget(&f->db, &rule, &walk, f->arena, &names, &f->err));
	assert_int_equal(names.count, JOB_FILES_PAGE - 1);
	assert_int_not_equal(walk.job_id, 0);
	/* It goes on behind what it left. */
	must(job_files_forget(&f->db, &rule, &walk, f->arena, &names, &f->err));
	assert_int_equal(names.count, JOB_FILES_PAGE - 1);
	assert_int_equal(forget_all(f), LOST - 2 * (JOB_FILES_PAGE - 1));
	assert_int_equal(count_rows(f), 2);
	must(job_files_get(&f->db, id, JOB_FILE_INPUT, 0, f->arena, &(struct job_file){0}, &f->err));
}

static void a_blob_without_a_row_is_found(void **state)
{
	struct fixture *f = *state;
	int64_t id = submit(f);
	const char *replaced = NULL;
	struct job_file now = {0};
	struct job_file_names names = {0};
	struct job_file_names unknown;
	char never[JOB_FILE_NAME_SIZE];

	must(add(f, id, JOB_FILE_INPUT, 0, &replaced));
	must(add(f, id, JOB_FILE_INPUT, 0, &replaced));
	must(job_files_get(&f->db, id, JOB_FILE_INPUT, 0, f->arena, &now, &f->err));
	job_file_name(&(struct job_file_place){id, JOB_FILE_INPUT, 1}, 1, never);
	names = (struct job_file_names){{now.blob, replaced, "no-name-of-ours", never}, 4};
	must(job_files_unknown(&f->db, &names, &unknown, &f->err));
	assert_int_equal(unknown.count, 2);
	assert_string_equal(unknown.items[0], replaced);
	assert_string_equal(unknown.items[1], never);
	names.count = 0;
	must(job_files_unknown(&f->db, &names, &unknown, &f->err));
	assert_int_equal(unknown.count, 0);
}

/* --- a day --- */

/* The third's client dies between its first file and its second. */
enum fate { SENDS_AT_ONCE, SENDS_LATE, SENDS_HALF, SENDS_NEVER, FATES };

struct modelled {
	int64_t id;
	enum fate fate;
	int64_t created_at;
	int64_t ended_at; /* 0: not yet */
	enum job_state state;
	int inputs; /* that were sent */
	bool ran;
};

static void send_and_run(struct fixture *f, struct modelled *m)
{
	send_inputs(f, m->id);
	run(f, m->id);
	m->inputs = 2;
	m->ran = true;
	m->state = JOB_SUCCEEDED;
	m->ended_at = f->now;
}

static void begin(struct fixture *f, struct modelled *m, int step)
{
	const char *replaced = NULL;

	*m = (struct modelled){.id = submit(f), .fate = step % FATES, .created_at = f->now, .state = JOB_PARKED};
	if (m->fate == SENDS_AT_ONCE)
		send_and_run(f, m);
	if (m->fate == SENDS_HALF) {
		must(add(f, m->id, JOB_FILE_INPUT, 0, &replaced));
		m->inputs = 1;
	}
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

/* How many rows the job has. */
static int64_t check(struct fixture *f, const struct modelled *m)
{
	int64_t inputs = m->ended_at == 0 || f->now - m->ended_at < KEEP_INPUT_NS ? m->inputs : 0;
	int64_t outputs = m->ran && f->now - m->ended_at < KEEP_NS;

	for (int64_t n = 0; n < 2; n++)
		must_be(job_files_get(&f->db, m->id, JOB_FILE_INPUT, n, f->arena, &(struct job_file){0}, &f->err),
			n < inputs ? 0 : JOB_FILES_NONE);
	must_be(job_files_get(&f->db, m->id, JOB_FILE_OUTPUT, 0, f->arena, &(struct job_file){0}, &f->err),
		outputs > 0 ? 0 : JOB_FILES_NONE);
	assert_int_equal(fixture_get(f, m->id).state, m->state);
	return inputs + outputs;
}

static void a_day_keeps_what_is_wanted_and_no_longer(void **state)
{
	struct fixture *f = *state;
	struct modelled jobs[STEPS];
	int64_t cancelled = 0;
	int64_t rows = 0;
	int64_t most = 0;

	for (int step = 0; step < STEPS; step++) {
		int64_t count = 0;
		begin(f, &jobs[step], step);
		for (int i = 0; i < step; i++)
			go_on(f, &jobs[i]);
		must(job_files_expire(&f->db, WAIT_NS, &count, &f->err));
		assert_int_equal(count, expire(f, jobs, step + 1));
		cancelled += count;
		(void)forget_all(f);
		rows = 0;
		for (int i = 0; i <= step; i++)
			rows += check(f, &jobs[i]);
		assert_int_equal(count_rows(f), rows);
		most = rows > most ? rows : most;
		pass_time(f, STEP_NS);
	}
	/* Two of four jobs, but those of the last hour and a bit; and outputs of the first hours are gone. */
	assert_in_range(cancelled, STEPS / 2 - 4, STEPS / 2);
	assert_in_range(most, STEPS / 3, STEPS);
	assert_string_equal(fixture_get(f, jobs[SENDS_NEVER].id).reason, JOB_FILES_MISSING_REASON);
	/* A day without jobs, and nothing is left. */
	pass_time(f, WAIT_NS);
	must(job_files_expire(&f->db, WAIT_NS, &rows, &f->err));
	pass_time(f, KEEP_NS);
	assert_true(forget_all(f) > 0);
	assert_int_equal(count_rows(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(files_come_once_and_in_time, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(one_job_is_put_in_order_alone, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(inputs_are_kept_for_a_retry, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_walk_takes_page_after_page_and_leaves_what_is_wanted, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(a_blob_without_a_row_is_found, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_day_keeps_what_is_wanted_and_no_longer, fixture_setup,
						fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
