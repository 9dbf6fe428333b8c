#include "agent/state.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/loop.h"
#include "role/role.h"
#include "store/migrate.h"
#include "store/sql.h"

static const char *const stage_texts[STATE_STAGE_COUNT] = {
#define X(name, text) [STATE_##name] = text,
	STATE_STAGES(X)
#undef X
};

/* Texts of a result are of a closed set: what is read back points to the same literals. */
static const char *const result_texts[] = {
	"succeeded", "failed", "cancelled", "timed_out", "lost",       "exit",
	"signal",    "oom",    "timeout",   "vm_lost",	 "guest_lost", "start_failed",
};

struct state {
	char *agent_id;
	struct loop *loop;
	struct sql *sql;
	struct sql_inbox *inbox;
	struct loop_source *source;
	bool closing; /* nobody is told any more */
};

struct write {
	struct state *state;
	struct state_job job;
	int64_t now;
	state_done_fn done;
	void *ctx;
	struct err err;		   /* why it did not begin */
	struct loop_source *retry; /* tells that from the loop */
};

static void on_inbox(void *ctx, unsigned events)
{
	struct state *s = ctx;

	(void)events;
	sql_inbox_drain(s->inbox);
}

/* Rows from when a database was one agent's. */
static int adopt_tx(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct state *s = ctx;

	return sql_exec(tx, "UPDATE agent_job SET agent_id = $1 WHERE agent_id = ''", SQL_ARGS(sql_text(s->agent_id)),
			NULL, err);
}

int state_open(struct loop *loop, const char *dsn, const char *agent_id, struct state **ret, struct err *err)
{
	autoptr(state) s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->agent_id = xstrdup(agent_id);
	int rc = sql_inbox_new(&s->inbox, err);
	if (rc == 0)
		rc = loop_add_fd(loop, sql_inbox_fd(s->inbox), LOOP_READ, LOOP_NORMAL, on_inbox, s, &s->source, err);
	if (rc == 0)
		rc = sql_open(
			&(struct sql_opts){
				.dsn = dsn, .connections = 1, .failed = role_disk_failed, .migrating = role_migrating},
			&s->sql, err);
	if (rc == 0)
		rc = sql_migrate(s->sql, "agent", err);
	if (rc == 0)
		rc = sql_write(s->sql, adopt_tx, s, err);
	if (rc < 0)
		return err_wrap(err, "the agent's database");
	*ret = TAKE(s);
	return 0;
}

void state_free(struct state *s)
{
	if (s == NULL)
		return;
	s->closing = true;
	sql_free(s->sql);
	if (s->inbox != NULL)
		sql_inbox_drain(s->inbox);
	loop_source_free(s->source);
	sql_inbox_free(s->inbox);
	free(s->agent_id);
	free(s);
}

/* --- reading --- */

struct load {
	const char *agent_id;
	struct arena *arena;
	struct state_job *jobs;
	size_t count;
};

static enum state_stage stage_of(struct str text)
{
	for (unsigned i = 0; i < STATE_STAGE_COUNT; i++)
		if (str_eq(text, str_c(stage_texts[i])))
			return (enum state_stage)i;
	return STATE_STARTED; /* of a newer agent: what is not known is done again */
}

static const char *result_text(struct str text)
{
	for (size_t i = 0; i < ARRAY_LEN(result_texts); i++)
		if (str_eq(text, str_c(result_texts[i])))
			return result_texts[i];
	return NULL;
}

static void load_row(struct sql_rows *rows, struct arena *arena, struct state_job *ret)
{
	*ret = (struct state_job){
		.job_id = sql_col_i64(rows, 0),
		.attempt = sql_col_i64(rows, 1),
		.fence = sql_col_i64(rows, 2),
		.vcpus = sql_col_i64(rows, 3),
		.memory_mb = sql_col_i64(rows, 4),
		.stage = stage_of(sql_col_text(rows, 5)),
		.result = {.status = result_text(sql_col_text(rows, 6)),
			   .reason = result_text(sql_col_text(rows, 7)),
			   .message = sql_col_dup(rows, 8, arena),
			   .exit_code = sql_col_is_null(rows, 9) ? -1 : sql_col_i64(rows, 9),
			   .signal = sql_col_i64(rows, 10),
			   .last_seq = sql_col_is_null(rows, 11) ? -1 : sql_col_i64(rows, 11)},
	};
	if (ret->stage != STATE_STARTED && ret->result.status == NULL)
		ret->stage = STATE_STARTED;
}

static int load_tx(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct load *load = ctx;
	autoptr(sql_rows) rows = NULL;
	int64_t count = 0;

	int rc = sql_get_i64(tx, "SELECT count(*) FROM agent_job WHERE agent_id = $1",
			     SQL_ARGS(sql_text(load->agent_id)), &count, err);
	if (rc < 0)
		return rc;
	load->count = 0;
	load->jobs = arena_calloc(load->arena, (size_t)count, sizeof(*load->jobs));
	rc = sql_query(tx,
		       "SELECT job_id, attempt, fence, vcpus, memory_mb, stage, status, reason, message, exit_code, "
		       "signal, last_seq FROM agent_job WHERE agent_id = $1 ORDER BY job_id, attempt",
		       SQL_ARGS(sql_text(load->agent_id)), &rows, err);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		load_row(rows, load->arena, &load->jobs[load->count++]);
	return rc;
}

int state_load(struct state *s, struct arena *arena, struct state_job **ret, size_t *ret_count, struct err *err)
{
	struct load load = {.agent_id = s->agent_id, .arena = arena};

	int rc = sql_read(s->sql, load_tx, &load, err);
	if (rc < 0)
		return rc;
	*ret = load.jobs;
	*ret_count = load.count;
	return 0;
}

/* --- writing --- */

static void finish(struct write *w, const struct err *err)
{
	struct write finished = *w;

	loop_source_free(w->retry);
	free(w);
	if (!finished.state->closing)
		finished.done(finished.ctx, err);
	free(finished.job.result.message);
}

static void on_written(void *ctx, int rc, const struct err *err)
{
	finish(ctx, rc < 0 ? err : NULL);
}

static void on_refused(void *ctx)
{
	struct write *w = ctx;
	struct err err = w->err;

	finish(w, &err);
}

static void begin(struct write *w, sql_fn *fn)
{
	if (sql_write_start(w->state->sql, w->state->inbox, fn, on_written, w, &w->err) == 0)
		return;
	if (loop_add_timer(w->state->loop, 0, LOOP_NORMAL, on_refused, w, &w->retry, NULL) < 0)
		out_of_memory(); /* a timer needs nothing else */
}

static int put_tx(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct write *w = ctx;
	const struct state_job *j = &w->job;
	bool ended = j->stage != STATE_STARTED;

	return sql_exec(tx,
			"INSERT INTO agent_job (job_id, attempt, fence, vcpus, memory_mb, stage, status, reason, "
			"message, exit_code, signal, last_seq, created_at, updated_at, agent_id) "
			"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14) "
			"ON CONFLICT (agent_id, job_id, attempt) DO UPDATE SET fence = $3, stage = $6, status = $7, "
			"reason = $8, message = $9, exit_code = $10, signal = $11, last_seq = $12, updated_at = $13",
			SQL_ARGS(sql_i64(j->job_id), sql_i64(j->attempt), sql_i64(j->fence), sql_i64(j->vcpus),
				 sql_i64(j->memory_mb), sql_text(stage_texts[j->stage]),
				 sql_text(ended ? j->result.status : NULL), sql_text(ended ? j->result.reason : NULL),
				 sql_text(ended ? j->result.message : NULL),
				 ended && j->result.exit_code >= 0 ? sql_i64(j->result.exit_code) : sql_null(),
				 ended ? sql_i64(j->result.signal) : sql_null(),
				 ended && j->result.last_seq >= 0 ? sql_i64(j->result.last_seq) : sql_null(),
				 sql_i64(w->now), sql_text(w->state->agent_id)),
			NULL, err);
}

void state_put(struct state *s, const struct state_job *job, state_done_fn done, void *ctx)
{
	struct write *w = xcalloc(1, sizeof(*w));

	*w = (struct write){.state = s, .job = *job, .now = clock_unix_ns(), .done = done, .ctx = ctx};
	w->job.result.message = job->result.message != NULL ? xstrdup(job->result.message) : NULL;
	begin(w, put_tx);
}

static int delete_tx(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct write *w = ctx;

	return sql_exec(tx, "DELETE FROM agent_job WHERE agent_id = $1 AND job_id = $2 AND attempt = $3",
			SQL_ARGS(sql_text(w->state->agent_id), sql_i64(w->job.job_id), sql_i64(w->job.attempt)), NULL,
			err);
}

void state_delete(struct state *s, int64_t job_id, int64_t attempt, state_done_fn done, void *ctx)
{
	struct write *w = xcalloc(1, sizeof(*w));

	*w = (struct write){
		.state = s, .job = {.job_id = job_id, .attempt = attempt}, .done = done, .ctx = ctx, .now = 0};
	begin(w, delete_tx);
}
