#include "control/db/leases_db.h"

#include <assert.h>
#include <inttypes.h>

#include "base/clock.h"
#include "control/db/job_move.h"
#include "control/db/label_rows.h"

/* How sure we are of a lease; the numbers are stored. */
enum stage {
	STAGE_PROVISIONAL, /* perhaps nobody has it: over soon, uncounted */
	STAGE_GRANTED,	   /* not heard of since: over at its TTL, counted */
	STAGE_CONFIRMED,   /* the agent has used its fence */
};

/* --- taking --- */

/*
 * Which job an agent gets: the whole policy, and the function that another scheduler replaces. Today: of all jobs whose
 * labels the offer covers and that fit into what is free, the oldest. For each such label set one step into the queue's
 * index. 1 found.
 */
static int choose(struct sql_tx *tx, int64_t offer_id, const struct lease_offer *offer, int64_t *ret_job_id,
		  struct err *err)
{
	int64_t vcpus = offer->vcpus > 0 ? offer->vcpus : INT64_MAX;
	int64_t memory_mb = offer->memory_mb > 0 ? offer->memory_mb : INT64_MAX;

	return sql_get_i64(tx,
			   "SELECT q.job_id FROM offer_match m JOIN queue q ON q.label_set_id = m.label_set_id"
			   " WHERE m.offer_id = $1 AND q.position = (SELECT MIN(f.position) FROM queue f"
			   " WHERE f.label_set_id = m.label_set_id AND f.vcpus <= $2 AND f.memory_mb <= $3)"
			   " ORDER BY q.position LIMIT 1",
			   SQL_ARGS(sql_i64(offer_id), sql_i64(vcpus), sql_i64(memory_mb)), ret_job_id, err);
}

struct take {
	const struct lease_offer *offer;
	struct arena *arena;
	int64_t offer_id; /* 0: the offer was never made before */
	struct job job;
};

/* 0 where there is certainly nothing; an offer that was never seen must be written first, to know. */
static int look(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct take *take = ctx;
	int64_t job_id = 0;
	int rc = offer_find(tx, take->offer->labels, &take->offer_id, err);

	if (rc <= 0)
		return rc < 0 ? rc : 1;
	return choose(tx, take->offer_id, take->offer, &job_id, err);
}

static int take_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct take *take = ctx;
	const struct lease_offer *offer = take->offer;
	struct job *job = &take->job;
	int64_t offer_id = take->offer_id;
	int64_t job_id = 0;
	int rc = offer_id != 0 ? 0 : offer_store(t, offer->labels, &offer_id, err);

	if (rc == 0)
		rc = choose(t->tx, offer_id, offer, &job_id, err);
	if (rc <= 0)
		return rc < 0 ? rc : LEASES_DB_NONE;
	rc = job_read(t->tx, job_id, take->arena, job, err);
	if (rc < 0)
		return rc;
	assert(rc > 0 && job->state == JOB_QUEUED);
	job->agent_id = arena_strdup(take->arena, offer->agent_id);
	rc = job_move(t, job, JOB_LEASED, NULL, err);
	if (rc < 0)
		return rc;
	int64_t lives_ns = offer->provisional ? LEASE_PROVISIONAL_NS : offer->ttl_ns;
	return sql_exec(t->tx,
			"INSERT INTO lease (job_id, agent_id, fence, stage, granted_at, expires_at)"
			" VALUES ($1, $2, $3, $4, $5, $6)",
			SQL_ARGS(sql_i64(job->id), sql_text(offer->agent_id), sql_i64(job->fence),
				 sql_i64(offer->provisional ? STAGE_PROVISIONAL : STAGE_GRANTED), sql_i64(t->now),
				 sql_i64(t->now + lives_ns)),
			NULL, err);
}

int leases_db_lease(const struct control_db *db, const struct lease_offer *offer, struct arena *arena, struct job *ret,
		    struct err *err)
{
	struct take take = {.offer = offer, .arena = arena};
	int rc = sql_read(db->sql, look, &take, err);

	if (rc <= 0)
		return rc < 0 ? rc : LEASES_DB_NONE;
	rc = control_write(db, take_fn, &take, err);
	if (rc == 0)
		*ret = take.job;
	return rc;
}

struct ready {
	struct arena *arena;
	struct ready_job job;
};

static int ready_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct ready *r = ctx;
	autoptr(sql_rows) rows = NULL;
	int rc =
		sql_query(tx,
			  "SELECT l.labels, q.vcpus, q.memory_mb FROM queue q JOIN label_set l ON l.id = q.label_set_id"
			  " WHERE q.job_id = $1",
			  SQL_ARGS(sql_i64(r->job.id)), &rows, err);

	if (rc == 0)
		rc = sql_next(rows, err);
	if (rc <= 0)
		return rc;
	r->job.labels = sql_col_dup(rows, 0, r->arena);
	r->job.vcpus = sql_col_i64(rows, 1);
	r->job.memory_mb = sql_col_i64(rows, 2);
	return 1;
}

int leases_db_ready(const struct control_db *db, int64_t job_id, struct arena *arena, struct ready_job *ret,
		    struct err *err)
{
	struct ready r = {.arena = arena, .job = {.id = job_id}};
	int rc = sql_read(db->sql, ready_fn, &r, err);

	if (rc > 0)
		*ret = r.job;
	return rc;
}

/* --- fenced writes --- */

/* The one check that all writes of an agent pass: a lease of that job, agent and fence that has not expired. */
static int check_fence(struct control_tx *t, int64_t job_id, const char *agent_id, int64_t fence, enum stage *ret_stage,
		       struct err *err)
{
	int64_t stage = 0;
	int rc = sql_get_i64(t->tx,
			     "SELECT stage FROM lease WHERE job_id = $1 AND agent_id = $2 AND fence = $3"
			     " AND expires_at > $4",
			     SQL_ARGS(sql_i64(job_id), sql_text(agent_id), sql_i64(fence), sql_i64(t->now)), &stage,
			     err);

	if (rc == 0)
		return err_set(err, ERR_STALE_FENCE,
			       "agent '%.128s' has no lease on job %" PRId64 " with fence %" PRId64, agent_id, job_id,
			       fence);
	if (rc > 0)
		*ret_stage = (enum stage)stage;
	return rc < 0 ? rc : 0;
}

static int extend(struct control_tx *t, int64_t job_id, int64_t ttl_ns, struct err *err)
{
	return sql_exec(t->tx, "UPDATE lease SET stage = $2, expires_at = $3 WHERE job_id = $1",
			SQL_ARGS(sql_i64(job_id), sql_i64(STAGE_CONFIRMED), sql_i64(t->now + ttl_ns)), NULL, err);
}

struct renew {
	const struct lease_renewal *in;
	bool cancel_requested;
};

static int read_secret(struct control_tx *t, const struct lease_renewal *in, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(t->tx, "SELECT sealed FROM job_secret WHERE job_id = $1", SQL_ARGS(sql_i64(in->job_id)),
			   &rows, err);

	if (rc == 0)
		rc = sql_next(rows, err);
	buf_clear(in->secret_env);
	if (rc > 0)
		buf_append_str(in->secret_env, sql_col_blob(rows, 0));
	return rc < 0 ? rc : 0;
}

static int renew_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct renew *r = ctx;
	int64_t cancel_at = 0;
	enum stage stage = STAGE_PROVISIONAL;
	int rc = check_fence(t, r->in->job_id, r->in->agent_id, r->in->fence, &stage, err);

	if (rc == 0)
		rc = extend(t, r->in->job_id, r->in->ttl_ns, err);
	if (rc == 0)
		rc = sql_get_i64(t->tx, "SELECT cancel_requested_at FROM job WHERE id = $1",
				 SQL_ARGS(sql_i64(r->in->job_id)), &cancel_at, err);
	if (rc < 0)
		return rc;
	r->cancel_requested = cancel_at != 0;
	return r->in->secret_env != NULL ? read_secret(t, r->in, err) : 0;
}

int leases_db_renew(const struct control_db *db, const struct lease_renewal *renewal, bool *ret_cancel_requested,
		    struct err *err)
{
	struct renew r = {.in = renewal};
	int rc = control_write(db, renew_fn, &r, err);

	if (rc == 0)
		*ret_cancel_requested = r.cancel_requested;
	return rc;
}

/* Text of the report that the job keeps after the call. */
static void take_over(struct job *job, const struct job_report *in)
{
	if (in->message != NULL)
		job->message = in->message;
	if (!job_state_final(in->state))
		return;
	job->exit_code = in->exit_code;
	job->signal = in->signal;
	job->last_seq = in->last_seq;
}

/* An agent repeats an end until it is answered: the same one is fine again. */
static bool is_repeated(const struct job *job, const struct job_report *in)
{
	return job_state_final(job->state) && !in->lost && job->state == in->state && job->fence == in->fence &&
	       job->agent_id != NULL && strcmp(job->agent_id, in->agent_id) == 0;
}

static int report_live(struct control_tx *t, const struct job_report *in, struct job *job, enum stage stage,
		       struct err *err)
{
	int rc = job_metadata_merge(t->tx, job->id, &in->metadata, err);

	if (rc < 0)
		return rc;
	if (in->lost) {
		if (in->message != NULL)
			job->message = in->message;
		rc = job_lose(t, job, true, in->reason != NULL ? in->reason : "lost", err);
		return rc < 0 ? rc : LEASES_DB_RETRY;
	}
	take_over(job, in);
	if (stage != STAGE_CONFIRMED && !job_state_final(in->state)) {
		rc = extend(t, job->id, in->ttl_ns, err);
		if (rc < 0)
			return rc;
	}
	if (job_state_may_move(job->state, in->state))
		return job_move(t, job, in->state, in->reason, err);
	return job_save(t, job, err);
}

static int report_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct job_report *in = ctx;
	struct job job = {0};
	enum stage stage = STAGE_PROVISIONAL;
	int rc = job_read(t->tx, in->job_id, t->arena, &job, err);

	if (rc < 0)
		return rc;
	if (rc > 0 && is_repeated(&job, in))
		return LEASES_DB_REPEATED;
	rc = check_fence(t, in->job_id, in->agent_id, in->fence, &stage, err);
	return rc < 0 ? rc : report_live(t, in, &job, stage, err);
}

int leases_db_report(const struct control_db *db, const struct job_report *report, struct err *err)
{
	struct job_report in = *report;

	assert(in.lost || in.state == JOB_STARTING || in.state == JOB_RUNNING ||
	       (job_state_final(in.state) && in.state != JOB_DEAD));
	return control_write(db, report_fn, &in, err);
}

/* --- giving back --- */

struct release {
	int64_t job_id;
	int64_t fence;
};

static int release_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct release *r = ctx;
	struct job job = {0};
	int64_t changed = 0;
	int rc = sql_exec(t->tx, "DELETE FROM lease WHERE job_id = $1 AND fence = $2 AND stage < $3",
			  SQL_ARGS(sql_i64(r->job_id), sql_i64(r->fence), sql_i64(STAGE_CONFIRMED)), &changed, err);

	if (rc < 0 || changed == 0)
		return rc;
	rc = job_read(t->tx, r->job_id, t->arena, &job, err);
	return rc <= 0 ? rc : job_lose(t, &job, false, "lease_undelivered", err);
}

int leases_db_release(const struct control_db *db, int64_t job_id, int64_t fence, struct err *err)
{
	struct release r = {.job_id = job_id, .fence = fence};

	return control_write(db, release_fn, &r, err);
}

enum { EXPIRE_BATCH = 256 };

struct expired {
	int64_t job_id;
	enum stage stage;
};

/* Whoever deletes a lease owns what follows, so that this one statement may run anywhere, any number of times. */
static int take_expired(struct control_tx *t, struct expired *found, size_t *ret_count, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(t->tx,
			   "DELETE FROM lease WHERE expires_at <= $1 AND job_id IN (SELECT job_id FROM lease"
			   " WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) RETURNING job_id, stage",
			   SQL_ARGS(sql_i64(t->now), sql_i64(EXPIRE_BATCH)), &rows, err);

	*ret_count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		assert(*ret_count < EXPIRE_BATCH);
		found[(*ret_count)++] = (struct expired){sql_col_i64(rows, 0), (enum stage)sql_col_i64(rows, 1)};
	}
	return rc;
}

static int expire_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct expired found[EXPIRE_BATCH];
	size_t *count = ctx;
	int rc = take_expired(t, found, count, err);

	for (size_t i = 0; i < *count && rc >= 0; i++) {
		struct job job = {0};
		bool counted = found[i].stage != STAGE_PROVISIONAL;
		rc = job_read(t->tx, found[i].job_id, t->arena, &job, err);
		if (rc > 0)
			rc = job_lose(t, &job, counted, counted ? "lease_expired" : "lease_unconfirmed", err);
	}
	return rc < 0 ? rc : 0;
}

static int any_expired(struct sql_tx *tx, void *ctx, struct err *err)
{
	const int64_t *now = ctx;
	int64_t job_id = 0;

	return sql_get_i64(tx, "SELECT job_id FROM lease WHERE expires_at <= $1 LIMIT 1", SQL_ARGS(sql_i64(*now)),
			   &job_id, err);
}

int leases_db_expire(const struct control_db *db, int64_t *ret_count, struct err *err)
{
	size_t count = 0;
	int64_t total = 0;
	int rc = 0;

	do {
		int64_t now = control_now(db);
		count = 0;
		rc = sql_read(db->sql, any_expired, &now, err);
		if (rc > 0) {
			rc = control_write(db, expire_fn, &count, err);
			total += (int64_t)count;
		}
	} while (rc >= 0 && count == EXPIRE_BATCH);
	if (rc < 0)
		return rc;
	*ret_count = total;
	return 0;
}

/* --- commands --- */

struct commands {
	const char *agent_id;
	struct arena *arena;
	struct lease_command *items;
	size_t count;
};

enum { COMMANDS_MAX = 256 }; /* what does not fit comes with the next answer */

static int commands_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct commands *c = ctx;
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx,
			   "SELECT a.job_id, a.fence FROM lease a JOIN job j ON j.id = a.job_id WHERE a.agent_id = $1"
			   " AND j.cancel_requested_at IS NOT NULL ORDER BY a.job_id LIMIT $2",
			   SQL_ARGS(sql_text(c->agent_id), sql_i64(COMMANDS_MAX)), &rows, err);

	c->items = arena_calloc(c->arena, COMMANDS_MAX, sizeof(*c->items));
	c->count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		c->items[c->count++] = (struct lease_command){sql_col_i64(rows, 0), sql_col_i64(rows, 1)};
	return rc;
}

int leases_db_commands(const struct control_db *db, const char *agent_id, struct arena *arena,
		       struct lease_command **ret, size_t *ret_count, struct err *err)
{
	struct commands c = {.agent_id = agent_id, .arena = arena};
	int rc = sql_read(db->sql, commands_fn, &c, err);

	if (rc == 0) {
		*ret = c.items;
		*ret_count = c.count;
	}
	return rc;
}
