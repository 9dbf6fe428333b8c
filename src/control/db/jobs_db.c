#include "control/db/jobs_db.h"

#include <assert.h>
#include <inttypes.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "control/db/deliveries_db.h"
#include "control/db/job_move.h"
#include "control/db/label_rows.h"

/* --- submit --- */

static void job_from_spec(const struct job_spec *spec, struct job *job)
{
	*job = (struct job){
		.org_id = spec->org_id,
		.name = spec->name,
		.origin = "api",
		.image = spec->image,
		.argv = spec->argv,
		.env = spec->env,
		.labels = {.items = spec->labels.items, .count = spec->labels.count},
		.executor = spec->executor != NULL ? spec->executor : "firecracker",
		.vcpus = spec->vcpus,
		.memory_mb = spec->memory_mb,
		.disk_mb = spec->disk_mb,
		.timeout_s = spec->timeout_s,
		.has_secret_env = spec->secret_env != NULL,
		.state = JOB_QUEUED,
		.attempt = 1,
		.max_attempts = spec->max_attempts,
		.exit_code = -1,
		.last_seq = -1,
		.idempotency_key = spec->idempotency_key,
		.metadata = spec->metadata,
	};
}

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

	autovar(buf) text = {0};
	autovar(buf) hex = {0};
	js_write_sorted(all, &text);
	struct sha256 hash = crypto_sha256(buf_str(&text));
	encode_hex((struct str){(const char *)hash.bytes, sizeof(hash.bytes)}, &hex);
	return arena_str(arena, buf_str(&hex));
}

static int store_secret(struct control_tx *t, int64_t job_id, const struct secret *secret, struct err *err)
{
	autovar(buf) sealed = {0};

	if (t->db->sealer == NULL)
		return err_set(err, ERR_UNSUPPORTED, "secret_env: this server has no key to encrypt it with");
	sealer_seal(t->db->sealer, job_id, secret_reveal(secret), &sealed); /* into the cipher, nowhere else */
	return sql_exec(t->tx, "INSERT INTO job_secret (job_id, sealed) VALUES ($1, $2)",
			SQL_ARGS(sql_i64(job_id), sql_blob(buf_str(&sealed))), NULL, err);
}

/* Everything that comes with a new job. */
static int create(struct control_tx *t, const struct job_spec *spec, struct job *job, const char *digest,
		  struct err *err)
{
	int rc = control_next_id(t, "job", &job->id, err);

	if (rc == 0)
		rc = label_set_store(t, &spec->labels, &job->label_set_id, err);
	if (rc == 0)
		rc = job_insert(t, job, digest, err);
	if (rc == 0 && spec->secret_env != NULL)
		rc = store_secret(t, job->id, spec->secret_env, err);
	if (rc == 0)
		rc = job_metadata_merge(t->tx, job->id, &spec->metadata, err);
	return rc;
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
	int rc = create(t, s->spec, &job, s->digest, err);
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

/* --- GitHub --- */

static const struct {
	const char *conclusion;
	enum job_state state;
} conclusions[] = {
	{"success", JOB_SUCCEEDED}, {"neutral", JOB_SUCCEEDED},	  {"cancelled", JOB_CANCELLED},
	{"skipped", JOB_CANCELLED}, {"timed_out", JOB_TIMED_OUT},
};

static enum job_state ended_as(const char *conclusion)
{
	for (size_t i = 0; conclusion != NULL && i < ARRAY_LEN(conclusions); i++) {
		if (strcmp(conclusions[i].conclusion, conclusion) == 0)
			return conclusions[i].state;
	}
	return JOB_FAILED;
}

/* Where a job that nobody here runs stands, by what GitHub says of it. */
static enum job_state standing(const struct github_fold *fold, const char **ret_reason)
{
	switch (fold->event->action) {
	case GITHUB_ACTION_QUEUED:
		*ret_reason = fold->leasable ? NULL : "github_app_not_configured";
		return fold->leasable ? JOB_QUEUED : JOB_PARKED;
	case GITHUB_ACTION_IN_PROGRESS:
		*ret_reason = "github_in_progress"; /* another runner has it */
		return JOB_PARKED;
	case GITHUB_ACTION_COMPLETED:
		*ret_reason = "github_completed";
		return ended_as(fold->event->conclusion);
	case GITHUB_ACTION_WAITING:
	case GITHUB_ACTION_OTHER:
		break;
	}
	*ret_reason = "github_waiting"; /* for an approval, or a timer */
	return JOB_PARKED;
}

struct fold {
	const struct github_fold *in;
	struct arena *arena;
	struct job job;
};

static int fold_new(struct control_tx *t, struct fold *f, struct err *err)
{
	const struct github_fold *in = f->in;
	const struct github_workflow_job *event = in->event;
	struct job *job = &f->job;

	job_from_spec(in->run_as, job);
	job->label_key = label_set_key(&in->run_as->labels, f->arena);
	job->origin = "github";
	job->state = standing(in, &job->reason);
	job->github_job_id = event->job_id;
	job->github_rank = event->action;
	job->conclusion = event->conclusion;
	job->run_id = event->run_id;
	job->run_attempt = event->run_attempt;
	job->repo_id = event->repo_id;
	job->repo_full_name = event->repo_full_name;
	job->repo_html_url = event->repo_html_url;
	job->repo_private = event->repo_private;
	return create(t, in->run_as, job, NULL, err);
}

static int request_cancel(struct control_tx *t, struct job *job, struct err *err)
{
	if (job->cancel_requested_at != 0)
		return job_save(t, job, err);
	job->cancel_requested_at = t->now;
	int rc = job_save(t, job, err);
	if (rc == 0)
		control_tell(t, &(struct job_event){
					.type = JOB_EVENT_CANCEL_REQUESTED,
					.job_id = job->id,
					.org_id = job->org_id,
					.from = job->state,
					.to = job->state,
					.at = t->now,
					.agent_id = job->agent_id,
				});
	return rc;
}

/* News of a job that we know. */
static int fold_known(struct control_tx *t, const struct github_fold *in, struct job *job, struct err *err)
{
	const char *reason = NULL;
	enum job_state to = standing(in, &reason);

	job->github_rank = in->event->action;
	if (in->event->conclusion != NULL)
		job->conclusion = in->event->conclusion;
	if (job_state_live(job->state))
		return to == JOB_CANCELLED ? request_cancel(t, job, err) : job_save(t, job, err);
	if (job_state_may_move(job->state, to))
		return job_move(t, job, to, reason, err);
	if (job->state == to && to == JOB_PARKED)
		job->reason = reason;
	return job_save(t, job, err);
}

static int fold_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct fold *f = ctx;
	const struct github_workflow_job *event = f->in->event;
	int outcome = 0;
	int rc = job_read_where(t->tx, JOB_SELECT " WHERE j.github_job_id = $1 AND j.run_attempt = $2",
				SQL_ARGS(sql_i64(event->job_id), sql_i64(event->run_attempt)), f->arena, &f->job, err);

	if (rc == 0)
		rc = fold_new(t, f, err);
	else if (rc > 0 && event->action > f->job.github_rank)
		rc = fold_known(t, f->in, &f->job, err);
	else if (rc > 0)
		outcome = JOBS_DB_STALE;
	if (rc >= 0 && f->in->delivery_id != NULL)
		rc = delivery_became_job(t, f->in->delivery_id, f->job.id, err);
	return rc < 0 ? rc : outcome;
}

int jobs_db_github(const struct control_db *db, const struct github_fold *fold, struct arena *arena, struct job *ret,
		   struct err *err)
{
	struct fold f = {.in = fold, .arena = arena};

	assert(fold->event->job_id > 0 && fold->event->run_attempt > 0);
	int rc = control_write(db, fold_fn, &f, err);
	if (rc >= 0)
		*ret = f.job;
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
	int rc = job_read(t->tx, c->id, c->arena, &c->job, err);

	if (rc <= 0)
		return rc < 0 ? rc : JOBS_DB_MISSING;
	if (job_state_final(c->job.state))
		return JOBS_DB_ENDED;
	if (job_state_live(c->job.state))
		return c->job.cancel_requested_at != 0 ? 0 : request_cancel(t, &c->job, err);
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

struct recent {
	const struct jobs_filter *filter;
	struct arena *arena;
	struct job *jobs;
	size_t count;
};

/* A condition for each filter that is set, so that the database can use the index of just those. */
static void recent_text(const struct jobs_filter *f, struct buf *text, struct sql_arg *args, size_t *count)
{
	size_t n = 0;

	buf_puts(text, JOB_SELECT " WHERE 1 = 1");
	if (f->org_id != 0) {
		args[n++] = sql_i64(f->org_id);
		buf_printf(text, " AND j.org_id = $%zu", n);
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

	recent_text(r->filter, &text, args, &list.count);
	r->count = 0;
	int rc = sql_query(tx, text.data, &list, &rows, err);
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
	struct recent r = {.filter = filter, .arena = arena};

	r.jobs = arena_calloc(arena, (size_t)filter->limit, sizeof(*r.jobs));
	int rc = sql_read(db->sql, recent_fn, &r, err);
	if (rc == 0) {
		*ret = r.jobs;
		*ret_count = r.count;
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
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		enum job_state state = JOB_PARKED;
		rc = job_state_parse(sql_col_text(rows, 0), &state, err);
		if (rc == 0)
			counts->by_state[state] = sql_col_i64(rows, 1);
	}
	return rc;
}

int jobs_db_counts(const struct control_db *db, struct jobs_counts *ret, struct err *err)
{
	return sql_read(db->sql, counts_fn, ret, err);
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
