#include "agent/state.h"

#include <fcntl.h>

#include "base/clock.h"
#include "base/file.h"
#include "net/loop.h"
#include "store/sql_test.h"

struct world {
	char folder[32];
	char *db;
	struct loop *loop;
	struct state *state;
	unsigned written;
	struct err err;
};

static int begin(void **state)
{
	static struct world w;

	w = (struct world){.folder = "/tmp/nimbus-state-XXXXXX"};
	assert_non_null(mkdtemp(w.folder));
	w.db = test_database(w.folder);
	assert_int_equal(loop_new(&w.loop, &w.err), 0);
	assert_int_equal(state_open(w.loop, w.db, "host-1", &w.state, &w.err), 0);
	*state = &w;
	return 0;
}

static int end(void **state)
{
	struct world *w = *state;

	state_free(w->state);
	loop_free(w->loop);
	free(w->db);
	return dir_remove(AT_FDCWD, w->folder, &w->err);
}

static void count(void *ctx, const struct err *err)
{
	struct world *w = ctx;

	assert_null(err);
	w->written++;
}

static void wait_for(struct world *w, unsigned written)
{
	int64_t deadline = clock_monotonic_ns() + 20 * NS_PER_S;

	while (w->written < written)
		assert_int_equal(loop_step(w->loop, deadline, &w->err), 0);
}

static void what_is_written_is_there_for_the_next_agent(void **state)
{
	struct world *w = *state;
	struct state_job *jobs = NULL;
	size_t jobs_count = 0;
	char message[] = "the job ended with exit code 3";
	struct state_job started = {.job_id = 2, .attempt = 1, .fence = 9, .vcpus = 2, .memory_mb = 512};
	struct state_job ended = {
		.job_id = 1,
		.attempt = 3,
		.fence = 4,
		.stage = STATE_ENDED,
		.result = {.status = "failed", .reason = "exit", .message = message, .exit_code = 3, .last_seq = 17}};
	struct state_job lost = {.job_id = 3,
				 .attempt = 1,
				 .fence = 1,
				 .stage = STATE_ENDED,
				 .result = {.status = "lost", .reason = "vm_lost", .exit_code = -1, .last_seq = -1}};

	state_put(w->state, &started, count, w);
	state_put(w->state, &ended, count, w);
	state_put(w->state, &lost, count, w);
	message[0] = 'X'; /* it has its own copy */
	wait_for(w, 3);
	state_free(w->state);
	assert_int_equal(state_open(w->loop, w->db, "host-1", &w->state, &w->err), 0);

	autoptr(arena) arena = arena_new();
	assert_int_equal(state_load(w->state, arena, &jobs, &jobs_count, &w->err), 0);
	assert_int_equal(jobs_count, 3);
	assert_int_equal(jobs[0].attempt, 3);
	assert_int_equal(jobs[0].fence, 4);
	assert_int_equal(jobs[0].stage, STATE_ENDED);
	assert_string_equal(jobs[0].result.status, "failed");
	assert_string_equal(jobs[0].result.reason, "exit");
	assert_string_equal(jobs[0].result.message, "the job ended with exit code 3");
	assert_int_equal(jobs[0].result.exit_code, 3);
	assert_int_equal(jobs[0].result.last_seq, 17);
	assert_int_equal(jobs[1].stage, STATE_STARTED);
	assert_null(jobs[1].result.status);
	assert_int_equal(jobs[1].vcpus, 2);
	assert_int_equal(jobs[1].memory_mb, 512);
	assert_int_equal(jobs[2].result.exit_code, -1);
	assert_int_equal(jobs[2].result.last_seq, -1);
}

static void a_job_is_one_row_until_it_is_deleted(void **state)
{
	struct world *w = *state;
	struct state_job *jobs = NULL;
	size_t jobs_count = 0;
	struct state_job job = {.job_id = 1, .attempt = 1, .fence = 1};

	state_put(w->state, &job, count, w);
	job.stage = STATE_ENDED;
	job.result = (struct job_result){.status = "succeeded", .reason = "exit"};
	state_put(w->state, &job, count, w);
	wait_for(w, 2);
	autoptr(arena) arena = arena_new();
	assert_int_equal(state_load(w->state, arena, &jobs, &jobs_count, &w->err), 0);
	assert_int_equal(jobs_count, 1);
	assert_string_equal(jobs[0].result.status, "succeeded");

	state_delete(w->state, 1, 2, count, w); /* another attempt */
	state_delete(w->state, 1, 1, count, w);
	wait_for(w, 4);
	assert_int_equal(state_load(w->state, arena, &jobs, &jobs_count, &w->err), 0);
	assert_int_equal(jobs_count, 0);
}

static void writes_under_way_at_the_end_are_finished(void **state)
{
	struct world *w = *state;
	struct state_job *jobs = NULL;
	size_t jobs_count = 0;

	state_put(w->state, &(struct state_job){.job_id = 5, .attempt = 1, .fence = 1}, count, w);
	state_free(w->state);
	assert_int_equal(w->written, 0);
	assert_int_equal(state_open(w->loop, w->db, "host-1", &w->state, &w->err), 0);
	autoptr(arena) arena = arena_new();
	assert_int_equal(state_load(w->state, arena, &jobs, &jobs_count, &w->err), 0);
	assert_int_equal(jobs_count, 1);
}

static int64_t fence_of(struct world *w, struct state *state)
{
	struct state_job *jobs = NULL;
	size_t count_of_jobs = 0;
	autoptr(arena) arena = arena_new();

	assert_int_equal(state_load(state, arena, &jobs, &count_of_jobs, &w->err), 0);
	assert_true(count_of_jobs <= 1);
	return count_of_jobs == 1 ? jobs[0].fence : 0;
}

/* A lease that never began goes to another agent under the same attempt. */
static void agents_of_one_database_do_not_see_each_other(void **state)
{
	struct world *w = *state;
	struct state *other = NULL;

	assert_int_equal(state_open(w->loop, w->db, "host-2", &other, &w->err), 0);
	state_put(w->state, &(struct state_job){.job_id = 7, .attempt = 1, .fence = 1}, count, w);
	state_put(other, &(struct state_job){.job_id = 7, .attempt = 1, .fence = 2}, count, w);
	wait_for(w, 2);
	assert_int_equal(fence_of(w, w->state), 1);
	assert_int_equal(fence_of(w, other), 2);
	state_delete(w->state, 7, 1, count, w);
	wait_for(w, 3);
	assert_int_equal(fence_of(w, w->state), 0);
	assert_int_equal(fence_of(w, other), 2);
	state_free(other);
}

static int old_row_tx(struct sql_tx *tx, void *ctx, struct err *err)
{
	const char *const text = "INSERT INTO agent_job SELECT '', job_id, attempt, fence, vcpus, memory_mb, stage,"
				 " status, reason, message, exit_code, signal, last_seq, created_at, updated_at"
				 " FROM agent_job";

	(void)ctx;
	return sql_exec(tx, text, SQL_NO_ARGS, NULL, err);
}

/* As migration 0002 leaves the rows of an agent that had its database for itself. */
static void rows_of_before_become_the_agents_own(void **state)
{
	struct world *w = *state;
	autoptr(sql) sql = NULL;

	state_put(w->state, &(struct state_job){.job_id = 7, .attempt = 1, .fence = 3}, count, w);
	wait_for(w, 1);
	assert_int_equal(sql_open(&(struct sql_opts){.dsn = w->db}, &sql, &w->err), 0);
	assert_int_equal(sql_write(sql, old_row_tx, NULL, &w->err), 0);
	state_delete(w->state, 7, 1, count, w);
	wait_for(w, 2);
	state_free(w->state);
	assert_int_equal(state_open(w->loop, w->db, "host-1", &w->state, &w->err), 0);
	assert_int_equal(fence_of(w, w->state), 3);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_written_is_there_for_the_next_agent, begin, end),
		cmocka_unit_test_setup_teardown(a_job_is_one_row_until_it_is_deleted, begin, end),
		cmocka_unit_test_setup_teardown(agents_of_one_database_do_not_see_each_other, begin, end),
		cmocka_unit_test_setup_teardown(rows_of_before_become_the_agents_own, begin, end),
		cmocka_unit_test_setup_teardown(writes_under_way_at_the_end_are_finished, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
