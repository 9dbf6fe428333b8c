#include "control/db/job_move.h"

#include <assert.h>
#include <inttypes.h>

#include "base/buf.h"
#include "control/db/held_jobs.h"
#include "control/db/seals_db.h"

static int write_history(struct control_tx *t, const struct job *job, const char *from, const char *agent_id,
			 struct err *err)
{
	return sql_exec(
		t->tx,
		"INSERT INTO job_history (job_id, n, at, from_state, to_state, attempt, fence, agent_id, reason)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		SQL_ARGS(sql_i64(job->id), sql_i64(job->moves), sql_i64(t->now), sql_text(from),
			 sql_text(job_state_text(job->state)), sql_i64(job->attempt), sql_i64(job->fence),
			 sql_text(agent_id), sql_text(job->reason)),
		NULL, err);
}

/* First in, first out: a job's place is its id, also when it comes back. */
static int enter_queue(struct control_tx *t, const struct job *job, struct err *err)
{
	return sql_exec(t->tx,
			"INSERT INTO queue (job_id, label_set_id, position, vcpus, memory_mb, queued_at)"
			" VALUES ($1, $2, $1, $3, $4, $5)",
			SQL_ARGS(sql_i64(job->id), sql_i64(job->label_set_id), sql_i64(job->vcpus),
				 sql_i64(job->memory_mb), sql_i64(job->queued_at)),
			NULL, err);
}

static int delete_from(struct control_tx *t, const char *text, const struct job *job, struct err *err)
{
	return sql_exec(t->tx, text, SQL_ARGS(sql_i64(job->id)), NULL, err);
}

/* What a job leaves behind in the state it comes from, and takes up in the one it goes to. */
static int follow(struct control_tx *t, const struct job *job, enum job_state from, struct err *err)
{
	bool final = job_state_final(job->state);
	int rc = 0;

	if (from == JOB_PARKED)
		rc = held_jobs_remove(t, job->org_id, job->id, err);
	if (from == JOB_QUEUED)
		rc = delete_from(t, "DELETE FROM queue WHERE job_id = $1", job, err);
	if (rc == 0 && job_state_live(from) && !job_state_live(job->state))
		rc = delete_from(t, "DELETE FROM lease WHERE job_id = $1", job, err);
	if (rc == 0 && job->state == JOB_QUEUED)
		rc = enter_queue(t, job, err);
	if (rc == 0 && final && job->has_secret_env)
		rc = delete_from(t, "DELETE FROM job_secret WHERE job_id = $1", job, err);
	/* An attempt that nobody had has no lines. */
	if (rc == 0 && final)
		rc = seal_add(t, job->id, job->attempt, job->org_id, job_state_live(from) ? job->last_seq : 0, err);
	return rc;
}

static void tell(struct control_tx *t, enum job_event_type type, const struct job *job, enum job_state from,
		 const char *agent_id)
{
	control_tell(
		t, &(struct job_event){
			   .type = type,
			   .job_id = job->id,
			   .org_id = job->org_id,
			   .from = from,
			   .to = job->state,
			   .reason = job->reason,
			   .at = t->now,
			   .queued_at = job->queued_at,
			   .leased_at = job->leased_at,
			   .agent_id = agent_id,
			   .labels = job->label_key,
			   .vcpus = job->vcpus,
			   .memory_mb = job->memory_mb,
			   .message = job->message,
			   .exit_code = job->exit_code,
			   .signal = job->signal,
			   .has_files = job->extras != NULL,
			   .seal_due = type == JOB_EVENT_MOVED && (job_state_final(job->state) || job_state_live(from)),
		   });
}

int job_save(struct control_tx *t, struct job *job, struct err *err)
{
	int64_t changed = 0;
	int rc = sql_exec(
		t->tx,
		"UPDATE job SET state = $3, reason = $4, message = $5, attempt = $6, fence = $7, moves = $8,"
		" agent_id = $9, exit_code = $10, signal = $11, last_seq = $12, cancel_requested_at = $13,"
		" github_rank = $14, conclusion = $15, queued_at = $16, leased_at = $17, started_at = $18,"
		" completed_at = $19, updated_at = $20 WHERE id = $1 AND moves = $2",
		SQL_ARGS(sql_i64(job->id), sql_i64(job->saved_moves), sql_text(job_state_text(job->state)),
			 sql_text(job->reason), sql_text(job->message), sql_i64(job->attempt), sql_i64(job->fence),
			 sql_i64(job->moves), sql_text(job->agent_id),
			 job->exit_code < 0 ? sql_null() : sql_i64(job->exit_code), sql_i64_or_null(job->signal),
			 job->last_seq < 0 ? sql_null() : sql_i64(job->last_seq),
			 sql_i64_or_null(job->cancel_requested_at), sql_i64(job->github_rank),
			 sql_text(job->conclusion), sql_i64_or_null(job->queued_at), sql_i64_or_null(job->leased_at),
			 sql_i64_or_null(job->started_at), sql_i64_or_null(job->completed_at), sql_i64(t->now)),
		&changed, err);

	if (rc < 0)
		return rc;
	if (changed != 1)
		return err_set(err, ERR_CONFLICT, "job %" PRId64 " was changed by another request", job->id);
	job->saved_moves = job->moves;
	job->updated_at = t->now;
	return 0;
}

int job_move(struct control_tx *t, struct job *job, enum job_state to, const char *reason, struct err *err)
{
	enum job_state from = job->state;
	const char *agent_id = job->agent_id;

	assert(job_state_may_move(from, to));
	job->state = to;
	job->reason = reason;
	job->moves++;
	if (to == JOB_QUEUED) {
		job->queued_at = t->now;
		job->leased_at = 0;
		job->started_at = 0;
		job->agent_id = NULL;
	}
	if (to == JOB_LEASED) {
		job->leased_at = t->now;
		job->fence++;
	}
	if (to == JOB_RUNNING)
		job->started_at = t->now;
	if (job_state_final(to))
		job->completed_at = t->now;
	int rc = job_save(t, job, err);
	if (rc == 0)
		rc = write_history(t, job, job_state_text(from), agent_id, err);
	if (rc == 0)
		rc = follow(t, job, from, err);
	if (rc == 0)
		tell(t, JOB_EVENT_MOVED, job, from, agent_id);
	return rc;
}

int job_lose(struct control_tx *t, struct job *job, bool counted, const char *reason, struct err *err)
{
	assert(job_state_live(job->state));
	job->last_seq = -1;
	if (job->cancel_requested_at != 0)
		return job_move(t, job, JOB_CANCELLED, "cancelled", err);
	if (!counted)
		return job_move(t, job, JOB_QUEUED, reason, err);
	if (job->attempt >= job->max_attempts) {
		job->message = arena_printf(t->arena, "all %" PRId64 " attempts were lost; the last one: %s",
					    job->max_attempts, reason);
		return job_move(t, job, JOB_DEAD, reason, err);
	}
	int rc = seal_add(t, job->id, job->attempt, job->org_id, -1, err);
	if (rc < 0)
		return rc;
	job->attempt++;
	return job_move(t, job, JOB_QUEUED, reason, err);
}

int job_request_cancel(struct control_tx *t, struct job *job, struct err *err)
{
	bool asked = job->cancel_requested_at != 0;

	assert(job_state_live(job->state));
	if (!asked)
		job->cancel_requested_at = t->now;
	int rc = job_save(t, job, err);
	if (rc == 0 && !asked)
		tell(t, JOB_EVENT_CANCEL_REQUESTED, job, job->state, job->agent_id);
	return rc;
}

static void texts_json(const struct js_texts *texts, struct buf *out)
{
	autoptr(js) array = js_new_array();

	for (size_t i = 0; i < texts->count; i++)
		js_push(array, js_new_text(texts->items[i]));
	js_write(array, out);
}

static void pairs_json(const struct js_pairs *pairs, struct buf *out)
{
	autoptr(js) object = js_new_object();

	for (size_t i = 0; i < pairs->count; i++)
		js_set(object, pairs->items[i].key, js_new_text(pairs->items[i].value));
	js_write(object, out);
}

int job_insert(struct control_tx *t, struct job *job, const char *request_digest, struct err *err)
{
	autovar(buf) argv = {0};
	autovar(buf) env = {0};

	texts_json(&job->argv, &argv);
	pairs_json(&job->env, &env);
	job->moves = job->saved_moves = 1;
	job->created_at = job->updated_at = t->now;
	job->queued_at = job->state == JOB_QUEUED ? t->now : 0;
	job->completed_at = job_state_final(job->state) ? t->now : 0;
	int64_t inserted = 0;
	int rc = sql_exec(
		t->tx,
		"INSERT INTO job (id, org_id, name, origin, image, argv, env, label_set_id, executor, vcpus, memory_mb,"
		" disk_mb, timeout_s, has_secret_env, state, reason, attempt, max_attempts, fence, moves,"
		" idempotency_key, request_digest, github_job_id, github_rank, conclusion, run_id, run_attempt, "
		"repo_id,"
		" repo_full_name, repo_html_url, repo_private, created_at, queued_at, completed_at, updated_at,"
		" network, extras, image_digest)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 0, 1, $19,"
		" $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $30, $33, $34, $35) ON CONFLICT DO "
		"NOTHING",
		SQL_ARGS(sql_i64(job->id), sql_i64(job->org_id), sql_text(job->name), sql_text(job->origin),
			 sql_text(job->image), sql_str(buf_str(&argv)), sql_str(buf_str(&env)),
			 sql_i64(job->label_set_id), sql_text(job->executor), sql_i64(job->vcpus),
			 sql_i64(job->memory_mb), sql_i64(job->disk_mb), sql_i64(job->timeout_s),
			 sql_bool(job->has_secret_env), sql_text(job_state_text(job->state)), sql_text(job->reason),
			 sql_i64(job->attempt), sql_i64(job->max_attempts), sql_text(job->idempotency_key),
			 sql_text(request_digest), sql_i64_or_null(job->github_job_id), sql_i64(job->github_rank),
			 sql_text(job->conclusion), sql_i64_or_null(job->run_id), sql_i64_or_null(job->run_attempt),
			 sql_i64_or_null(job->repo_id), sql_text(job->repo_full_name), sql_text(job->repo_html_url),
			 sql_bool(job->repo_private), sql_i64(t->now), sql_i64_or_null(job->queued_at),
			 sql_i64_or_null(job->completed_at), sql_text(job->network), sql_text(job->extras),
			 sql_text(job->image_digest)),
		&inserted, err);
	if (rc == 0 && inserted == 0)
		return control_again(t, err);
	if (rc == 0)
		rc = write_history(t, job, NULL, NULL, err);
	if (rc == 0 && job->state == JOB_QUEUED)
		rc = enter_queue(t, job, err);
	if (rc == 0)
		tell(t, JOB_EVENT_CREATED, job, job->state, NULL);
	return rc;
}
