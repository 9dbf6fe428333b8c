#include "control/db/job_retry.h"

#include <inttypes.h>

#include "control/db/job_files.h"
#include "control/db/job_new.h"
#include "model/job_extras.h"

struct call {
	const struct job_retry *in;
	struct arena *arena;
	bool waits_for_files;
	struct job job;
};

/* What only its client had is not there a second time. */
static int check_extras(struct call *c, const struct job *old, struct err *err)
{
	struct job_extras extras = {0};
	int rc = job_extras_of(old, c->arena, &extras, err);

	if (rc < 0)
		return rc;
	if (extras.session)
		return err_set(err, ERR_CONFLICT,
			       "job %" PRId64 " spoke with a client that is not there any more: run it again, with "
			       "'nimbus run'",
			       old->id);
	c->waits_for_files = extras.inputs.count > 0;
	if (c->waits_for_files && !c->in->has_inputs)
		return err_set(err, ERR_CONFLICT,
			       "job %" PRId64 " needs files that are not here, or not all of them: send them again, "
			       "with 'nimbus run' or as a job with 'inputs'",
			       old->id);
	return 0;
}

static int check(struct call *c, const struct job *old, struct err *err)
{
	if (!job_state_final(old->state))
		return err_set(err, ERR_CONFLICT, "job %" PRId64 " is %s: what has ended can be retried, no other",
			       old->id, job_state_text(old->state));
	if (old->github_job_id != 0)
		return err_set(err, ERR_CONFLICT, "job %" PRId64 " is GitHub's: re-run it there, and it comes again",
			       old->id);
	if (old->has_secret_env && c->in->secret_env == NULL)
		return err_set(err, ERR_CONFLICT,
			       "job %" PRId64 " had secret_env, which was erased when it ended: give it again",
			       old->id);
	return check_extras(c, old, err);
}

/* All that was asked for, and nothing of what became of it. */
static struct job again(const struct call *c, const struct job *old)
{
	struct job job = *old;

	job.id = 0;
	job.origin = "api";
	job.has_secret_env = c->in->secret_env != NULL;
	job.state = c->waits_for_files ? JOB_PARKED : JOB_QUEUED;
	job.message = job.agent_id = job.conclusion = NULL;
	job.reason = c->waits_for_files ? JOB_FILES_REASON : NULL;
	job.attempt = 1;
	job.fence = job.signal = job.cancel_requested_at = 0;
	job.exit_code = job.last_seq = -1;
	job.idempotency_key = c->in->idempotency_key;
	job.leased_at = job.started_at = job.completed_at = 0;
	job.metadata = (struct js_pairs){0};
	return job;
}

/* 1: the key has this retry already. */
static int find_by_key(struct control_tx *t, const struct call *c, int64_t org_id, const char *digest, struct job *ret,
		       struct err *err)
{
	int64_t same = 0;
	int rc = job_read_where(t->tx, JOB_SELECT " WHERE j.org_id = $1 AND j.idempotency_key = $2",
				SQL_ARGS(sql_i64(org_id), sql_text(c->in->idempotency_key)), c->arena, ret, err);

	if (rc <= 0)
		return rc;
	rc = sql_get_i64(t->tx, "SELECT COUNT(*) FROM job WHERE id = $1 AND request_digest = $2",
			 SQL_ARGS(sql_i64(ret->id), sql_text(digest)), &same, err);
	if (rc >= 0 && same == 0)
		return err_set(err, ERR_CONFLICT,
			       "idempotency_key: it was used for job %" PRId64 ", which was asked for differently",
			       ret->id);
	return rc;
}

/* What is run again should differ in nothing but its time. */
static int find_image(struct control_tx *t, const struct call *c, const struct job *old, const char **ret,
		      struct err *err)
{
	*ret = NULL;
	if (c->in->newest_image)
		return 0;
	int rc = job_booted_image(t->tx, old->id, c->arena, ret, err);
	if (rc == 0 && *ret == NULL)
		*ret = old->image_digest; /* it never ran, but was to run in that */
	return rc;
}

static int create(struct control_tx *t, struct call *c, const struct job *old, const char *digest, struct err *err)
{
	const struct job_spec spec = {
		.org_id = old->org_id,
		.secret_env = c->in->secret_env,
		.extras = old->extras,
		.labels = {.items = old->labels.items, .count = old->labels.count},
	};

	c->job = again(c, old);
	int rc = find_image(t, c, old, &c->job.image_digest, err);
	if (rc == 0)
		rc = job_create(t, &spec, &c->job, digest, err);
	if (rc < 0)
		return rc;
	return sql_exec(t->tx, "INSERT INTO job_retry (job_id, retry_of) VALUES ($1, $2)",
			SQL_ARGS(sql_i64(c->job.id), sql_i64(old->id)), NULL, err);
}

/* Nothing leaves a final state, so the old job needs no lock. */
static int retry_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct call *c = ctx;
	const char *digest = arena_printf(t->arena, "retry of %" PRId64 "%s", c->in->id,
					  c->in->newest_image ? " in the newest image" : "");
	struct job old = {0};
	int rc = job_read(t->tx, c->in->id, c->arena, &old, err);

	if (rc <= 0)
		return rc < 0 ? rc : JOB_RETRY_MISSING;
	if (c->in->idempotency_key != NULL) {
		rc = find_by_key(t, c, old.org_id, digest, &c->job, err);
		if (rc != 0)
			return rc < 0 ? rc : JOB_RETRY_KNOWN;
	}
	rc = check(c, &old, err);
	return rc < 0 ? rc : create(t, c, &old, digest, err);
}

int job_retry(const struct control_db *db, const struct job_retry *retry, struct arena *arena, struct job *ret,
	      struct err *err)
{
	struct call c = {.in = retry, .arena = arena};
	int rc = control_write(db, retry_fn, &c, err);

	if (rc == 0 || rc == JOB_RETRY_KNOWN)
		*ret = c.job;
	return rc;
}

struct links {
	int64_t id;
	struct job_links found;
};

static int links_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct links *l = ctx;

	l->found = (struct job_links){0};
	int rc = sql_get_i64(tx, "SELECT retry_of FROM job_retry WHERE job_id = $1", SQL_ARGS(sql_i64(l->id)),
			     &l->found.retry_of, err);
	if (rc >= 0)
		rc = sql_get_i64(tx, "SELECT MAX(job_id) FROM job_retry WHERE retry_of = $1", SQL_ARGS(sql_i64(l->id)),
				 &l->found.retried_as, err);
	return rc < 0 ? rc : 0;
}

int job_links_read(const struct control_db *db, int64_t id, struct job_links *ret, struct err *err)
{
	struct links l = {.id = id};
	int rc = sql_read(db->sql, links_fn, &l, err);

	if (rc == 0)
		*ret = l.found;
	return rc;
}
