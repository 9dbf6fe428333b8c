#include "control/db/admission.h"

#include <inttypes.h>
#include <stdio.h>

#include "control/db/held_jobs.h"
#include "control/db/job_move.h"
#include "control/db/rate_limit.h"

enum { LET_IN_BATCH = 64, KEY_SIZE = 40 };

static void org_key(int64_t org_id, char key[KEY_SIZE])
{
	(void)snprintf(key, KEY_SIZE, "org-jobs:%" PRId64, org_id);
}

static int take(struct control_tx *t, const char *key, struct gcra_verdict *ret, struct err *err)
{
	const struct gcra *limit = &t->db->org_jobs;

	return rate_limit_take(t->tx, key, limit->limit, limit->interval_ns, 1, t->now, ret, err);
}

static int hold(struct control_tx *t, int64_t org_id, int64_t job_id, int64_t next_at, struct err *err)
{
	int rc = held_jobs_add(t, org_id, job_id, next_at, err);

	if (rc < 0)
		return rc;
	control_tell(t, &(struct job_event){.type = JOB_EVENT_HELD,
					    .job_id = job_id,
					    .org_id = org_id,
					    .from = JOB_PARKED,
					    .to = JOB_PARKED,
					    .reason = ADMISSION_REASON,
					    .at = t->now});
	return ADMISSION_HELD;
}

int admission_ask(struct control_tx *t, int64_t org_id, int64_t job_id, struct err *err)
{
	struct gcra_verdict verdict = {.allowed = true};
	char key[KEY_SIZE];
	int64_t next_at = 0;

	if (t->db->org_jobs.limit <= 0)
		return 0;
	org_key(org_id, key);
	int rc = rate_limit_lock(t->tx, key, err);
	if (rc == 0)
		rc = held_jobs_next(t, org_id, &next_at, err);
	if (rc == 0) {
		rc = take(t, key, &verdict, err);
		next_at = verdict.retry_at;
		if (rc == 0 && verdict.allowed)
			return 0;
	}
	return rc < 0 ? rc : hold(t, org_id, job_id, next_at, err);
}

/* --- letting in --- */

/* 0: there is no room for it. LET_BUSY: somebody else works on it, and may be waiting for the rate's lock, which we
 * hold, so we do not wait for him: next time. */
enum { LET_IN = 1, LET_BUSY, LET_GO };

static int let_job_in(struct control_tx *t, const char *key, int64_t job_id, struct gcra_verdict *verdict,
		      struct err *err)
{
	struct job job = {0};
	int rc = job_read_where(t->tx, JOB_SELECT " WHERE j.id = $1 FOR UPDATE OF j SKIP LOCKED",
				SQL_ARGS(sql_i64(job_id)), t->arena, &job, err);

	if (rc <= 0)
		return rc < 0 ? rc : LET_BUSY;
	if (job.state != JOB_PARKED) {
		rc = held_jobs_remove(t, job.org_id, job_id, err);
		return rc < 0 ? rc : LET_GO;
	}
	rc = take(t, key, verdict, err);
	if (rc < 0 || !verdict->allowed)
		return rc;
	rc = job_move(t, &job, JOB_QUEUED, NULL, err);
	return rc < 0 ? rc : LET_IN;
}

static int let_org_in(struct control_tx *t, int64_t org_id, int64_t *ret_count, struct err *err)
{
	struct gcra_verdict verdict = {.allowed = true};
	int64_t ids[LET_IN_BATCH];
	char key[KEY_SIZE];
	int64_t next_at = 0;
	size_t count = 0;
	size_t seen = 0;
	bool busy = false;

	org_key(org_id, key);
	int rc = rate_limit_lock(t->tx, key, err);
	/* Under the lock it is seen again: another control plane may have been first. */
	if (rc == 0)
		rc = held_jobs_next(t, org_id, &next_at, err);
	if (rc <= 0 || next_at > t->now)
		return rc < 0 ? rc : 0;
	rc = held_jobs_first(t, org_id, ids, ARRAY_LEN(ids), &count, err);
	for (; rc >= 0 && seen < count; seen++) {
		rc = let_job_in(t, key, ids[seen], &verdict, err);
		if (rc <= 0)
			break;
		*ret_count += rc == LET_IN;
		busy = busy || rc == LET_BUSY;
	}
	if (rc < 0)
		return rc;
	return held_jobs_put_off(t, org_id, verdict.allowed ? t->now : verdict.retry_at,
				 seen == count && !busy && count < LET_IN_BATCH, err);
}

static int let_in_fn(struct control_tx *t, void *ctx, struct err *err)
{
	int64_t *count = ctx;
	int64_t org_id = 0;
	int rc = held_jobs_due(t->tx, t->now, &org_id, err);

	*count = 0;
	return rc <= 0 ? rc : let_org_in(t, org_id, count, err);
}

static int any_due(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct control_db *db = ctx;
	int64_t org_id = 0;
	int64_t now = 0;
	int rc = control_now(db, tx, &now, err);

	return rc < 0 ? rc : held_jobs_due(tx, now, &org_id, err);
}

int admission_let_in(const struct control_db *db, int64_t *ret_count, struct err *err)
{
	struct control_db copy = *db;
	int64_t count = 0;
	int rc = sql_read(db->sql, any_due, &copy, err);

	if (rc > 0)
		rc = control_write(db, let_in_fn, &count, err);
	if (rc == 0)
		*ret_count = count;
	return rc;
}

/* --- what is to be said --- */

struct foresee {
	const struct job *job;
	struct admission_forecast forecast;
};

static int foresee_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct foresee *f = ctx;
	int64_t next_at = 0;
	int rc = sql_get_i64(tx,
			     "SELECT o.next_at FROM held_org o JOIN held_job j ON j.org_id = o.org_id"
			     " WHERE o.org_id = $1 AND j.job_id = $2",
			     SQL_ARGS(sql_i64(f->job->org_id), sql_i64(f->job->id)), &next_at, err);

	if (rc <= 0)
		return rc;
	f->forecast.room_at = next_at;
	rc = sql_get_i64(tx, "SELECT COUNT(*) FROM held_job WHERE org_id = $1 AND job_id < $2",
			 SQL_ARGS(sql_i64(f->job->org_id), sql_i64(f->job->id)), &f->forecast.ahead, err);
	return rc < 0 ? rc : 1;
}

int admission_foresee(const struct control_db *db, const struct job *job, struct admission_forecast *ret,
		      struct err *err)
{
	struct foresee f = {.job = job};
	int rc = sql_read(db->sql, foresee_fn, &f, err);

	if (rc > 0) {
		f.forecast.room_at += f.forecast.ahead * (db->org_jobs.limit > 0 ? gcra_step_ns(&db->org_jobs) : 0);
		*ret = f.forecast;
	}
	return rc;
}

static int count_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int64_t *count = ctx;
	int rc = sql_get_i64(tx, "SELECT COUNT(*) FROM held_job", SQL_NO_ARGS, count, err);

	return rc < 0 ? rc : 0;
}

int admission_count(const struct control_db *db, int64_t *ret, struct err *err)
{
	return sql_read(db->sql, count_fn, ret, err);
}
