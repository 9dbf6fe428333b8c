/*
 * Files of jobs in a control plane that does not sweep itself: the test does.
 */
#include "control/app_test.h"
#include "control/db/job_files.h"
#include "control/db/job_retry.h"
#include "control/handlers.h"
#include "store/sql_test.h"

#define NO_LIMIT_NS PATIENCE_NS

static void use_database(struct world *w)
{
	w->settings.job_files_max = 1 << 20;
	w->settings.job_files_keep = 3600 * NS_PER_S;
	w->settings.database_pool_size = 4;
	if (test_postgresql() != NULL)
		w->settings.database_url = test_database(w->path);
}

static int set_up_files(void **state)
{
	int r = start(state, use_database);
	struct world *w = *state;

	worker_stop(w->app->expirer);
	return r;
}

static int tear_down_files(void **state)
{
	struct world *w = *state;
	autofree char *url = w->settings.database_url;

	return tear_down(state);
}

/* --- sweeping --- */

/* Without a sync: there are thousands. */
static void put_blob(struct world *w, const char *name)
{
	autofree char *path = xasprintf("%s/control/files/%s", w->path, name);
	autoclose fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
}

/* Of jobs that nobody knows; their blobs are of the same number. */
static void add_rows(struct world *w, int count)
{
	autofree char *text =
		xasprintf("WITH RECURSIVE lost (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM lost WHERE"
			  " id < %d) INSERT INTO job_file (job_id, kind, n, blob, size, sha256, stored_at)"
			  " SELECT 1000 + id, 'output', 0, 'row-' || id, 1, '', 0 FROM lost",
			  count);
	struct err err = {0};

	assert_outcome(sql_write(w->app->sql, test_statement_fn, &text, &err), 0, &err);
	for (int i = 1; i <= count; i++) {
		autofree char *name = xasprintf("row-%d", i);
		put_blob(w, name);
	}
}

static int count_rows_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	return sql_get_i64(tx, "SELECT COUNT(*) FROM job_file", SQL_NO_ARGS, ctx, err);
}

static int64_t count_rows(struct world *w)
{
	struct err err = {0};
	int64_t count = 0;

	assert_true(sql_read(w->app->sql, count_rows_fn, &count, &err) >= 0);
	return count;
}

static size_t count_blobs(struct world *w)
{
	autoptr(arena) arena = arena_new();
	const char *names[8192];
	size_t count = 0;

	/* Not from where the sweep stands. */
	do
		assert_int_equal(blobs_next(w->app->files, ARRAY_LEN(names), arena, names, &count, NULL), 0);
	while (count == ARRAY_LEN(names));
	return count;
}

/* Rows with blobs, and blobs that no row names, each of more than one page. */
static void one_pass_goes_to_the_end(void **state)
{
	struct world *w = *state;
	struct err err = {0};

	add_rows(w, 2000);
	for (int i = 0; i < 2000; i++) {
		char name[JOB_FILE_NAME_SIZE];
		job_file_name(&(struct job_file_place){5000 + i, JOB_FILE_OUTPUT, 0}, 1, name);
		put_blob(w, name);
	}
	assert_int_equal(count_blobs(w), 4000);
	assert_outcome(files_sweep(w->app, NO_LIMIT_NS, &err), 0, &err);
	assert_int_equal(count_rows(w), 0);
	assert_int_equal(count_blobs(w), 0);
}

/* The limit is over at once: a page, and the next pass goes on behind it. */
static void a_pass_has_a_limit(void **state)
{
	struct world *w = *state;
	struct err err = {0};

	add_rows(w, 2 * JOB_FILES_PAGE + 1);
	assert_outcome(files_sweep(w->app, 0, &err), 0, &err);
	assert_int_equal(count_rows(w), JOB_FILES_PAGE + 1);
	w->common.min_free_disk = INT64_MAX / 4;
	assert_outcome(files_sweep(w->app, 0, &err), FILES_SWEEP_SOON, &err);
	assert_int_equal(count_rows(w), 1);
	while (files_sweep(w->app, 0, &err) == FILES_SWEEP_SOON)
		continue;
	assert_int_equal(err.code, 0);
	assert_int_equal(count_rows(w), 0);
}

/* --- retries --- */

static void put_input(struct world *w, int64_t id, int n)
{
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/inputs/%d", id, n);
	const struct sent sent = {.method = "PUT", .path = path, .token = w->admin, .body = "bytes"};
	autovar(answer) a = send_call(w, &sent);

	assert_int_equal(a.status, 200);
}

static int64_t submit_with_inputs(struct world *w, const char *more)
{
	autofree char *body =
		xasprintf("{\"argv\":[\"true\"],\"inputs\":[{\"path\":\"/a\"},{\"path\":\"/b\"}]%s}", more);
	int64_t id = submit(w, body);

	put_input(w, id, 0);
	put_input(w, id, 1);
	return id;
}

static void cancel(struct world *w, int64_t id)
{
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/cancel", id);
	autovar(answer) a = post(w, w->admin, path, NULL);

	assert_int_equal(a.status, 202);
}

static size_t hold(struct world *w, int64_t id, struct arena *arena, struct held_inputs *ret)
{
	struct err err = {0};

	assert_outcome(inputs_hold(w->app, id, arena, ret, &err), 0, &err);
	return ret->count;
}

static void a_key_makes_one_retry_with_inputs(void **state)
{
	struct world *w = *state;
	int64_t id = submit_with_inputs(w, "");
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/retry", id);

	cancel(w, id);
	autovar(answer) first = post(w, w->admin, path, "{\"idempotency_key\":\"k\"}");
	autovar(answer) second = post(w, w->admin, path, "{\"idempotency_key\":\"k\"}");
	assert_int_equal(first.status, 201);
	assert_int_equal(second.status, 200);
	assert_int_equal(number(&first, "id"), number(&second, "id"));
	assert_string_equal(text(&second, "state"), "queued");
}

/* Both found the job waiting for its files, and the first gave them before the second did. */
static void two_retries_give_the_same_files(void **state)
{
	struct world *w = *state;
	autoptr(arena) arena = arena_new();
	autovar(held_inputs) one = {0};
	autovar(held_inputs) two = {0};
	int64_t id = submit_with_inputs(w, "");
	struct job_retry retry = {.id = id, .idempotency_key = "k", .has_inputs = true};
	struct job job = {0};
	struct job same = {0};
	struct err err = {0};

	cancel(w, id);
	assert_int_equal(hold(w, id, arena, &one), 2);
	assert_int_equal(hold(w, id, arena, &two), 2);
	assert_outcome(job_retry(&w->app->db, &retry, arena, &job, &err), 0, &err);
	assert_outcome(job_retry(&w->app->db, &retry, arena, &same, &err), JOB_RETRY_KNOWN, &err);
	assert_true(job_files_wanted(&same));
	assert_outcome(inputs_give(w->app, &one, arena, &job, &err), 0, &err);
	assert_outcome(inputs_give(w->app, &two, arena, &same, &err), 0, &err);
	assert_int_equal(err.code, 0);
	assert_int_equal(same.id, job.id);
	assert_int_equal(same.state, JOB_QUEUED);
}

static void nothing_is_held_of_what_cannot_be_retried(void **state)
{
	struct world *w = *state;
	autoptr(arena) arena = arena_new();
	autovar(held_inputs) held = {0};
	int64_t id = submit_with_inputs(w, "");
	int64_t session = submit_with_inputs(w, ",\"session\":{\"stdin\":true}");

	assert_int_equal(hold(w, id, arena, &held), 0);
	cancel(w, id);
	assert_int_equal(hold(w, id, arena, &held), 2);
	held_inputs_fini(&held);
	cancel(w, session);
	assert_int_equal(hold(w, session, arena, &held), 0);
}

#define FILES(test) cmocka_unit_test_setup_teardown(test, set_up_files, tear_down_files)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FILES(one_pass_goes_to_the_end),
		FILES(a_pass_has_a_limit),
		FILES(a_key_makes_one_retry_with_inputs),
		FILES(two_retries_give_the_same_files),
		FILES(nothing_is_held_of_what_cannot_be_retried),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
