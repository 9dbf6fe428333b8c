#include "control/db/leases_db.h"

#include <assert.h>
#include <inttypes.h>

#include "base/clock.h"
#include "control/db/agents_db.h"
#include "control/db/job_move.h"
#include "control/db/label_rows.h"

/* How sure we are of a lease; the numbers are stored. */
enum stage {
	STAGE_PROVISIONAL, /* perhaps nobody has it: over soon, uncounted */
	STAGE_GRANTED,	   /* not heard of since: over at its TTL, counted */
	STAGE_CONFIRMED,   /* the agent has used its fence */
};

/* --- taking --- */

enum { LOOKS_MAX = 3 };

/*
 * Which job an agent gets: the whole policy, and the two functions that another scheduler replaces. Today: of all jobs
 * whose labels the offer covers and that fit into what is free, the oldest.
 *
 * First the label sets that have such a job, oldest first: for each one step into the queue's index, and a second for
 * what is too big. Looking locks nothing, so it is a read, and free where there is no work.
 */
enum { SETS_MAX = 64 };

struct take {
	const struct lease_offer *offer;
	struct arena *arena;
	int64_t offer_id; /* 0: the offer was never made before */
	int64_t sets[SETS_MAX];
	size_t set_count;
	bool drains;
	struct job job;
};

static int64_t limit_of(int64_t free_amount)
{
	return free_amount > 0 ? free_amount : INT64_MAX;
}

static int find_sets(struct sql_tx *tx, struct take *take, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx,
			   "SELECT q.label_set_id FROM offer_match m JOIN queue q ON q.label_set_id = m.label_set_id"
			   " WHERE m.offer_id = $1 AND q.position = (SELECT MIN(f.position) FROM queue f"
			   " WHERE f.label_set_id = m.label_set_id AND f.vcpus <= $2 AND f.memory_mb <= $3)"
			   " ORDER BY q.position LIMIT $4",
			   SQL_ARGS(sql_i64(take->offer_id), sql_i64(limit_of(take->offer->vcpus)),
				    sql_i64(limit_of(take->offer->memory_mb)), sql_i64(SETS_MAX)),
			   &rows, err);

	take->set_count = 0;
	while (rc >= 0 && take->set_count < SETS_MAX && (rc = sql_next(rows, err)) > 0)
		take->sets[take->set_count++] = sql_col_i64(rows, 0);
	return rc < 0 ? rc : 0;
}

/*
 * Then, under lock, the oldest job of a set that nobody else is taking, cancelling or moving at this moment: the walk
 * along the index passes over those. 1: it is locked and ours.
 */
static int lock_first(struct control_tx *t, struct take *take, int64_t label_set_id, struct err *err)
{
	return job_read_where(t->tx,
			      JOB_SELECT " JOIN queue q ON q.job_id = j.id WHERE q.label_set_id = $1 AND q.vcpus <= $2"
					 " AND q.memory_mb <= $3 AND j.state = 'queued'"
					 " ORDER BY q.position LIMIT 1 FOR UPDATE OF j SKIP LOCKED",
			      SQL_ARGS(sql_i64(label_set_id), sql_i64(limit_of(take->offer->vcpus)),
				       sql_i64(limit_of(take->offer->memory_mb))),
			      take->arena, &take->job, err);
}

/* 0 where there is certainly nothing; an offer that was never seen must be written first, to know. */
static int look(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct take *take = ctx;
	int rc = agent_drains(tx, take->offer->agent_id, false, err);

	take->drains = rc > 0;
	if (rc != 0)
		return rc < 0 ? rc : 0;
	rc = offer_find(tx, take->offer->labels, &take->offer_id, err);
	if (rc <= 0)
		return rc < 0 ? rc : 1;
	rc = find_sets(tx, take, err);
	return rc < 0 ? rc : take->set_count > 0;
}

static int grant(struct control_tx *t, const struct lease_offer *offer, struct job *job, struct err *err)
{
	int64_t lives_ns = offer->provisional ? LEASE_PROVISIONAL_NS : offer->ttl_ns;
	int rc = job_move(t, job, JOB_LEASED, NULL, err);

	if (rc < 0)
		return rc;
	return sql_exec(t->tx,
			"INSERT INTO lease (job_id, agent_id, fence, stage, granted_at, expires_at)"
			" VALUES ($1, $2, $3, $4, $5, $6)",
			SQL_ARGS(sql_i64(job->id), sql_text(offer->agent_id), sql_i64(job->fence),
				 sql_i64(offer->provisional ? STAGE_PROVISIONAL : STAGE_GRANTED), sql_i64(t->now),
				 sql_i64(t->now + lives_ns)),
			NULL, err);
}

static int take_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct take *take = ctx;
	int found = 0;
	int rc = 0;

	if (take->offer_id == 0) {
		int64_t offer_id = 0;
		rc = offer_store(t, take->offer->labels, &offer_id, err);
		if (rc < 0)
			return rc;
		struct take first = {.offer = take->offer, .offer_id = offer_id};
		rc = find_sets(t->tx, &first, err);
		memcpy(take->sets, first.sets, sizeof(take->sets));
		take->set_count = first.set_count;
	}
	for (size_t i = 0; i < take->set_count && rc == 0 && found == 0; i++)
		rc = found = lock_first(t, take, take->sets[i], err);
	if (rc <= 0)
		return rc < 0 ? rc : LEASES_DB_NONE;
	take->job.agent_id = arena_strdup(take->arena, take->offer->agent_id);
	/* Under lock: who drains it waits for this lease, or this sees that it drains. */
	rc = agent_drains(t->tx, take->offer->agent_id, true, err);
	if (rc != 0)
		return rc < 0 ? rc : LEASES_DB_DRAINING;
	return grant(t, take->offer, &take->job, err);
}

int leases_db_lease(const struct control_db *db, const struct lease_offer *offer, struct arena *arena, struct job *ret,
		    struct err *err)
{
	struct take take = {.offer = offer, .arena = arena};
	int rc = LEASES_DB_NONE;

	/* What was seen may be gone when it is to be locked: then there may be something else. */
	for (int tries = 0; rc == LEASES_DB_NONE && tries < LOOKS_MAX; tries++) {
		rc = sql_read(db->sql, look, &take, err);
		if (rc <= 0)
			return rc < 0 ? rc : take.drains ? LEASES_DB_DRAINING : LEASES_DB_NONE;
		rc = control_write(db, take_fn, &take, err);
	}
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

struct heads {
	int64_t limit;
	struct arena *arena;
	struct ready_job *jobs;
	size_t count;
};

/* From one label set that is in the queue to the next, by steps into the index: not every job is looked at. */
static int heads_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct heads *h = ctx;
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx,
			   "WITH RECURSIVE s (id) AS (SELECT MIN(label_set_id) FROM queue UNION ALL"
			   " SELECT (SELECT MIN(q.label_set_id) FROM queue q WHERE q.label_set_id > s.id) FROM s"
			   " WHERE s.id IS NOT NULL)"
			   " SELECT h.job_id, l.labels, h.vcpus, h.memory_mb FROM s JOIN label_set l ON l.id = s.id"
			   " JOIN queue h ON h.label_set_id = s.id AND h.position = (SELECT MIN(f.position) FROM"
			   " queue f WHERE f.label_set_id = s.id) LIMIT $1",
			   SQL_ARGS(sql_i64(h->limit)), &rows, err);

	h->count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		h->jobs[h->count++] = (struct ready_job){
			.id = sql_col_i64(rows, 0),
			.labels = sql_col_dup(rows, 1, h->arena),
			.vcpus = sql_col_i64(rows, 2),
			.memory_mb = sql_col_i64(rows, 3),
		};
	}
	return rc;
}

int leases_db_heads(const struct control_db *db, int64_t limit, struct arena *arena, struct ready_job **ret,
		    size_t *ret_count, struct err *err)
{
	struct heads h = {.limit = limit, .arena = arena};

	h.jobs = arena_calloc(arena, (size_t)limit, sizeof(*h.jobs));
	int rc = sql_read(db->sql, heads_fn, &h, err);
	if (rc == 0) {
		*ret = h.jobs;
		*ret_count = h.count;
	}
	return rc;
}

/* --- fenced writes --- */

/* The one check that all writes of an agent pass: a lease of that job, agent and fence that has not expired. Under the
 * job's lock, so that it holds until the write is done. */
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
	int rc = sql_get_i64(t->tx, "SELECT cancel_requested_at FROM job WHERE id = $1 FOR UPDATE",
			     SQL_ARGS(sql_i64(r->in->job_id)), &cancel_at, err);

	if (rc >= 0)
		rc = check_fence(t, r->in->job_id, r->in->agent_id, r->in->fence, &stage, err);
	if (rc == 0)
		rc = extend(t, r->in->job_id, r->in->ttl_ns, err);
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
	int rc = job_lock(t->tx, in->job_id, t->arena, &job, err);

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
	int rc = job_lock(t->tx, r->job_id, t->arena, &job, err);

	if (rc <= 0)
		return rc;
	rc = sql_exec(t->tx, "DELETE FROM lease WHERE job_id = $1 AND fence = $2 AND stage < $3",
		      SQL_ARGS(sql_i64(r->job_id), sql_i64(r->fence), sql_i64(STAGE_CONFIRMED)), &changed, err);
	if (rc < 0 || changed == 0)
		return rc;
	return job_lose(t, &job, false, "lease_undelivered", err);
}

int leases_db_release(const struct control_db *db, int64_t job_id, int64_t fence, struct err *err)
{
	struct release r = {.job_id = job_id, .fence = fence};

	return control_write(db, release_fn, &r, err);
}

enum { EXPIRE_BATCH = 256 };

/* Locks the jobs whose leases seem to be over. What somebody else works on at this moment, an expirer or the agent's
 * own renew, is his. */
static int lock_expired(struct control_tx *t, int64_t *ids, size_t *ret_count, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(t->tx,
			   "SELECT a.job_id FROM lease a JOIN job j ON j.id = a.job_id WHERE a.expires_at <= $1"
			   " ORDER BY a.expires_at LIMIT $2 FOR UPDATE OF j SKIP LOCKED",
			   SQL_ARGS(sql_i64(t->now), sql_i64(EXPIRE_BATCH)), &rows, err);

	*ret_count = 0;
	while (rc >= 0 && *ret_count < EXPIRE_BATCH && (rc = sql_next(rows, err)) > 0)
		ids[(*ret_count)++] = sql_col_i64(rows, 0);
	return rc < 0 ? rc : 0;
}

/* 1: it was over indeed, and is no more. It may have been renewed between the look and the lock. */
static int end_expired(struct control_tx *t, int64_t job_id, struct err *err)
{
	struct job job = {0};
	int64_t stage = 0;
	int rc = sql_get_i64(t->tx, "DELETE FROM lease WHERE job_id = $1 AND expires_at <= $2 RETURNING stage",
			     SQL_ARGS(sql_i64(job_id), sql_i64(t->now)), &stage, err);

	if (rc > 0)
		rc = job_read(t->tx, job_id, t->arena, &job, err);
	if (rc <= 0)
		return rc;
	bool counted = stage != STAGE_PROVISIONAL;
	rc = job_lose(t, &job, counted, counted ? "lease_expired" : "lease_unconfirmed", err);
	return rc < 0 ? rc : 1;
}

struct expire {
	size_t locked;
	int64_t ended;
};

static int expire_fn(struct control_tx *t, void *ctx, struct err *err)
{
	int64_t ids[EXPIRE_BATCH];
	struct expire *e = ctx;
	int rc = lock_expired(t, ids, &e->locked, err);

	e->ended = 0;
	for (size_t i = 0; i < e->locked && rc >= 0; i++) {
		rc = end_expired(t, ids[i], err);
		e->ended += rc > 0;
	}
	return rc < 0 ? rc : 0;
}

static int any_expired(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct control_db *db = ctx;
	int64_t now = 0;
	int64_t job_id = 0;
	int rc = control_now(db, tx, &now, err);

	if (rc < 0)
		return rc;
	return sql_get_i64(tx, "SELECT job_id FROM lease WHERE expires_at <= $1 LIMIT 1", SQL_ARGS(sql_i64(now)),
			   &job_id, err);
}

int leases_db_expire(const struct control_db *db, int64_t *ret_count, struct err *err)
{
	struct control_db copy = *db;
	struct expire e = {0};
	int64_t total = 0;
	int rc = 0;

	do {
		e = (struct expire){0};
		rc = sql_read(db->sql, any_expired, &copy, err);
		if (rc > 0)
			rc = control_write(db, expire_fn, &e, err);
		total += rc == 0 ? e.ended : 0;
	} while (rc >= 0 && e.locked == EXPIRE_BATCH);
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

struct commanded {
	int64_t limit;
	struct arena *arena;
	const char **agents;
	size_t count;
};

static int commanded_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct commanded *c = ctx;
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx,
			   "SELECT DISTINCT a.agent_id FROM lease a JOIN job j ON j.id = a.job_id"
			   " WHERE j.cancel_requested_at IS NOT NULL LIMIT $1",
			   SQL_ARGS(sql_i64(c->limit)), &rows, err);

	c->count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		c->agents[c->count++] = sql_col_dup(rows, 0, c->arena);
	return rc;
}

int leases_db_commanded(const struct control_db *db, int64_t limit, struct arena *arena, const char ***ret,
			size_t *ret_count, struct err *err)
{
	struct commanded c = {.limit = limit, .arena = arena};

	c.agents = arena_calloc(arena, (size_t)limit, sizeof(*c.agents));
	int rc = sql_read(db->sql, commanded_fn, &c, err);
	if (rc == 0) {
		*ret = c.agents;
		*ret_count = c.count;
	}
	return rc;
}
