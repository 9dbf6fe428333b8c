#include "control/db/jobs_db.h"

#include <assert.h>
#include <inttypes.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "control/db/job_move.h"
#include "model/names.h"

/* --- submit --- */

static void push_texts(struct js *to, const struct js_texts *texts)
{
	js_push(to, js_new_int((int64_t)texts->count));
	for (size_t i = 0; i < texts->count; i++)
		js_push(to, js_new_text(texts->items[i]));
}

/* Equal for equal requests. Secret values are not in it: it must tell nobody anything. */
static char *request_digest(const struct job *job, struct arena *arena)
{
	autoptr(js) all = js_new_array();
	const char *texts[] = {job->name, job->image, job->executor, job->label_key};
	int64_t numbers[] = {job->vcpus,     job->memory_mb,	job->disk_mb,
			     job->timeout_s, job->max_attempts, job->has_secret_env};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		js_push(all, js_new_text(texts[i] != NULL ? texts[i] : ""));
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		js_push(all, js_new_int(numbers[i]));
	push_texts(all, &job->argv);
	struct js *env = js_new_object();
	for (size_t i = 0; i < job->env.count; i++)
		js_set(env, job->env.items[i].key, js_new_text(job->env.items[i].value));
	js_push(all, env);
	/* Left out where it is as it always was: keys of older versions stay good. */
	if (strcmp(job->network, JOB_NETWORK_NONE) != 0)
		js_push(all, js_new_text(job->network));
	if (job->extras != NULL) /* keys of older versions stay good */
		js_push(all, js_new_text(job->extras));

	autovar(buf) text = {0};
	autovar(buf) hex = {0};
	js_write_sorted(all, &text);
	struct sha256 hash = crypto_sha256(buf_str(&text));
	encode_hex((struct str){(const char *)hash.bytes, sizeof(hash.bytes)}, &hex);
	return arena_str(arena, buf_str(&hex));
}

struct submit {
	const struct job_spec *spec;
	const char *digest;
	struct arena *arena;
	struct job job;
};

/* 1: the key has a job already. */
static int find_by_key(struct control_tx *t, const struct submit *s, struct job *ret, struct err *err)
{
	int64_t same = 0;
	int rc = job_read_where(t->tx, JOB_SELECT " WHERE j.org_id = $1 AND j.idempotency_key = $2",
				SQL_ARGS(sql_i64(s->spec->org_id), sql_text(s->spec->idempotency_key)), s->arena, ret,
				err);

	if (rc <= 0)
		return rc;
	rc = sql_get_i64(t->tx, "SELECT COUNT(*) FROM job WHERE id = $1 AND request_digest = $2",
			 SQL_ARGS(sql_i64(ret->id), sql_text(s->digest)), &same, err);
	if (rc < 0)
		return rc;
	if (same == 0)
		return err_set(err, ERR_CONFLICT,
			       "idempotency_key: it was used for job %" PRId64 ", which was asked for differently",
			       ret->id);
	return 1;
}

static int submit_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct submit *s = ctx;
	struct job job = s->job;

	if (s->spec->idempotency_key != NULL) {
		int rc = find_by_key(t, s, &job, err);
		if (rc != 0) {
			if (rc > 0)
				s->job = job;
			return rc < 0 ? rc : JOBS_DB_KNOWN;
		}
	}
	int rc = job_create(t, s->spec, &job, s->digest, err);
	if (rc == 0)
		s->job = job;
	return rc;
}

int jobs_db_submit(const struct control_db *db, const struct job_spec *spec, struct arena *arena, struct job *ret,
		   struct err *err)
{
	struct submit s = {.spec = spec, .arena = arena};

	job_from_spec(spec, &s.job);
	s.job.label_key = label_set_key(&spec->labels, arena);
	s.digest = request_digest(&s.job, arena);
	int rc = control_write(db, submit_fn, &s, err);
	if (rc >= 0)
		*ret = s.job;
	return rc;
}

/* --- cancel --- */

struct cancel {
	int64_t id;
	struct arena *arena;
	struct job job;
};

static int cancel_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct cancel *c = ctx;
	int rc = job_lock(t->tx, c->id, c->arena, &c->job, err);

	if (rc <= 0)
		return rc < 0 ? rc : JOBS_DB_MISSING;
	if (job_state_final(c->job.state))
		return JOBS_DB_ENDED;
	if (job_state_live(c->job.state))
		return c->job.cancel_requested_at != 0 ? 0 : job_request_cancel(t, &c->job, err);
	c->job.cancel_requested_at = t->now;
	return job_move(t, &c->job, JOB_CANCELLED, "cancelled", err);
}

int jobs_db_cancel(const struct control_db *db, int64_t id, struct arena *arena, struct job *ret, struct err *err)
{
	struct cancel c = {.id = id, .arena = arena};
	int rc = control_write(db, cancel_fn, &c, err);

	if (rc == 0 || rc == JOBS_DB_ENDED)
		*ret = c.job;
	return rc;
}

/* --- reading --- */

struct get {
	int64_t id;
	struct arena *arena;
	struct job job;
};

static int get_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct get *g = ctx;
	int rc = job_read(tx, g->id, g->arena, &g->job, err);

	if (rc == 0)
		rc = job_read_where(tx, JOB_SELECT " WHERE j.github_job_id = $1 ORDER BY j.run_attempt DESC LIMIT 1",
				    SQL_ARGS(sql_i64(g->id)), g->arena, &g->job, err);
	if (rc <= 0)
		return rc < 0 ? rc : JOBS_DB_MISSING;
	return job_metadata_read(tx, g->arena, &g->job, err);
}

int jobs_db_get(const struct control_db *db, int64_t id, struct arena *arena, struct job *ret, struct err *err)
{
	struct get g = {.id = id, .arena = arena};
	int rc = sql_read(db->sql, get_fn, &g, err);

	if (rc == 0)
		*ret = g.job;
	return rc;
}

struct booted {
	int64_t id;
	struct arena *arena;
	const char *digest;
};

static int booted_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct booted *b = ctx;

	return job_booted_image(tx, b->id, b->arena, &b->digest, err);
}

int jobs_db_booted(const struct control_db *db, int64_t id, struct arena *arena, const char **ret, struct err *err)
{
	struct booted b = {.id = id, .arena = arena};
	int rc = sql_read(db->sql, booted_fn, &b, err);

	if (rc == 0)
		*ret = b.digest;
	return rc;
}

struct recent {
	const struct control_db *db;
	const struct jobs_filter *filter;
	struct arena *arena;
	struct job *jobs;
	size_t count;
};

/* A condition for each filter that is set, so that the database can use the index of just those. */
static void recent_text(const struct jobs_filter *f, int64_t now, struct buf *text, struct sql_arg *args, size_t *count)
{
	size_t n = 0;

	buf_puts(text, JOB_SELECT " WHERE 1 = 1");
	if (f->org_id != 0) {
		args[n++] = sql_i64(f->org_id);
		buf_printf(text, " AND j.org_id = $%zu", n);
	}
	if (f->agent_id != NULL) {
		args[n++] = sql_text(f->agent_id);
		buf_printf(text, " AND j.agent_id = $%zu", n);
	}
	if (f->within_ns != 0) {
		args[n++] = sql_i64(now - f->within_ns);
		buf_printf(text, " AND j.updated_at > $%zu", n);
	}
	if (f->state != NULL) {
		args[n++] = sql_text(f->state);
		buf_printf(text, " AND j.state = $%zu", n);
	}
	if (f->label != NULL) {
		args[n++] = sql_text(f->label);
		buf_printf(text,
			   " AND EXISTS (SELECT 1 FROM label_set_member m WHERE m.label_set_id = j.label_set_id"
			   " AND m.label = $%zu)",
			   n);
	}
	if (f->meta_key != NULL || f->meta_value != NULL) {
		buf_puts(text, " AND EXISTS (SELECT 1 FROM job_metadata d WHERE d.job_id = j.id");
		if (f->meta_key != NULL) {
			args[n++] = sql_text(f->meta_key);
			buf_printf(text, " AND d.key = $%zu", n);
		}
		if (f->meta_value != NULL) {
			args[n++] = sql_text(f->meta_value);
			buf_printf(text, " AND d.value = $%zu", n);
		}
		buf_putc(text, ')');
	}
	args[n++] = sql_i64(f->limit);
	buf_printf(text, " ORDER BY j.updated_at DESC, j.id DESC LIMIT $%zu", n);
	*count = n;
}

static int recent_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct recent *r = ctx;
	struct sql_arg args[8];
	struct sql_args list = {.items = args};
	autovar(buf) text = {0};
	autoptr(sql_rows) rows = NULL;

	int64_t now = 0;
	int rc = r->filter->within_ns != 0 ? control_now(r->db, tx, &now, err) : 0;
	if (rc < 0)
		return rc;
	recent_text(r->filter, now, &text, args, &list.count);
	r->count = 0;
	rc = sql_query(tx, text.data, &list, &rows, err);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		struct job *job = &r->jobs[r->count];
		rc = job_from_row(rows, r->arena, job, err);
		if (rc == 0)
			rc = job_metadata_read(tx, r->arena, job, err);
		if (rc == 0)
			r->count++;
	}
	return rc;
}

int jobs_db_recent(const struct control_db *db, const struct jobs_filter *filter, struct arena *arena, struct job **ret,
		   size_t *ret_count, struct err *err)
{
	assert(filter->limit > 0);
	struct recent r = {.db = db, .filter = filter, .arena = arena};

	r.jobs = arena_calloc(arena, (size_t)filter->limit, sizeof(*r.jobs));
	int rc = sql_read(db->sql, recent_fn, &r, err);
	if (rc == 0) {
		*ret = r.jobs;
		*ret_count = r.count;
	}
	return rc;
}

static int take_counts(struct sql_rows *rows, struct jobs_counts *counts, struct err *err)
{
	int rc = 0;

	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		enum job_state state = JOB_PARKED;
		rc = job_state_parse(sql_col_text(rows, 0), &state, err);
		if (rc == 0)
			counts->by_state[state] = sql_col_i64(rows, 1);
	}
	return rc;
}

static int counts_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct jobs_counts *counts = ctx;
	autoptr(sql_rows) rows = NULL;

	*counts = (struct jobs_counts){0};
	int rc = sql_get_i64(tx, "SELECT COUNT(*) FROM queue", SQL_NO_ARGS, &counts->queue_length, err);
	if (rc >= 0)
		rc = sql_get_i64(tx, "SELECT MIN(queued_at) FROM queue", SQL_NO_ARGS, &counts->oldest_queued_at, err);
	if (rc >= 0)
		rc = sql_query(tx, "SELECT state, COUNT(*) FROM job GROUP BY state", SQL_NO_ARGS, &rows, err);
	return rc < 0 ? rc : take_counts(rows, counts, err);
}

struct org_counts {
	int64_t org_id;
	struct jobs_counts counts;
};

/* The queue does not know whose its jobs are. */
static int org_counts_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct org_counts *o = ctx;
	autoptr(sql_rows) rows = NULL;

	o->counts = (struct jobs_counts){0};
	int rc = sql_get_i64(tx, "SELECT MIN(queued_at) FROM job WHERE org_id = $1 AND state = 'queued'",
			     SQL_ARGS(sql_i64(o->org_id)), &o->counts.oldest_queued_at, err);
	if (rc >= 0)
		rc = sql_query(tx, "SELECT state, COUNT(*) FROM job WHERE org_id = $1 GROUP BY state",
			       SQL_ARGS(sql_i64(o->org_id)), &rows, err);
	if (rc >= 0)
		rc = take_counts(rows, &o->counts, err);
	o->counts.queue_length = o->counts.by_state[JOB_QUEUED];
	return rc;
}

int jobs_db_counts(const struct control_db *db, int64_t org_id, struct jobs_counts *ret, struct err *err)
{
	struct org_counts o = {.org_id = org_id};

	if (org_id == 0)
		return sql_read(db->sql, counts_fn, ret, err);
	int rc = sql_read(db->sql, org_counts_fn, &o, err);
	if (rc >= 0)
		*ret = o.counts;
	return rc;
}

struct history {
	int64_t id;
	struct arena *arena;
	struct job_history *rows;
	size_t count;
};

static int history_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct history *h = ctx;
	int64_t count = 0;
	autoptr(sql_rows) rows = NULL;
	int rc = sql_get_i64(tx, "SELECT COUNT(*) FROM job_history WHERE job_id = $1", SQL_ARGS(sql_i64(h->id)), &count,
			     err);

	if (rc < 0 || count == 0)
		return rc < 0 ? rc : JOBS_DB_MISSING;
	h->rows = arena_calloc(h->arena, (size_t)count, sizeof(*h->rows));
	h->count = 0;
	rc = sql_query(tx,
		       "SELECT at, from_state, to_state, attempt, fence, agent_id, reason FROM job_history"
		       " WHERE job_id = $1 ORDER BY n",
		       SQL_ARGS(sql_i64(h->id)), &rows, err);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		h->rows[h->count++] = (struct job_history){
			.at = sql_col_i64(rows, 0),
			.from = sql_col_dup(rows, 1, h->arena),
			.to = sql_col_dup(rows, 2, h->arena),
			.attempt = sql_col_i64(rows, 3),
			.fence = sql_col_i64(rows, 4),
			.agent_id = sql_col_dup(rows, 5, h->arena),
			.reason = sql_col_dup(rows, 6, h->arena),
		};
	}
	return rc;
}

int jobs_db_history(const struct control_db *db, int64_t id, struct arena *arena, struct job_history **ret,
		    size_t *ret_count, struct err *err)
{
	struct history h = {.id = id, .arena = arena};
	int rc = sql_read(db->sql, history_fn, &h, err);

	if (rc == 0) {
		*ret = h.rows;
		*ret_count = h.count;
	}
	return rc;
}
