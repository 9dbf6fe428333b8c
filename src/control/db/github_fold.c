#include "control/db/github_fold.h"

#include <assert.h>
#include <string.h>

#include "control/db/admission.h"
#include "control/db/held_jobs.h"
#include "control/db/job_move.h"

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

static int fold_new(struct control_tx *t, const struct github_fold *in, struct job *job, struct err *err)
{
	const struct github_workflow_job *event = in->event;

	job_from_spec(in->run_as, job);
	job->label_key = label_set_key(&in->run_as->labels, t->arena);
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
	return job_create(t, in->run_as, job, NULL, err);
}

/* A job that waits for something goes on to where it stands now, which may be another wait. */
static int move_parked(struct control_tx *t, struct job *job, enum job_state to, const char *reason, struct err *err)
{
	int rc = 0;

	if (to == JOB_QUEUED)
		rc = admission_ask(t, job->org_id, job->id, err);
	if (rc == 0 && to != JOB_PARKED)
		return job_move(t, job, to, reason, err);
	if (rc == 0)
		rc = held_jobs_remove(t, job->org_id, job->id, err);
	if (rc < 0)
		return rc;
	job->reason = rc == ADMISSION_HELD ? ADMISSION_REASON : reason;
	return job_save(t, job, err);
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
		return to == JOB_CANCELLED ? job_request_cancel(t, job, err) : job_save(t, job, err);
	if (job->state == JOB_PARKED && (to == JOB_PARKED || job_state_may_move(JOB_PARKED, to)))
		return move_parked(t, job, to, reason, err);
	if (job_state_may_move(job->state, to))
		return job_move(t, job, to, reason, err);
	return job_save(t, job, err);
}

int github_fold(struct control_tx *t, const struct github_fold *fold, struct job *ret, struct err *err)
{
	const struct github_workflow_job *event = fold->event;

	assert(event->job_id > 0 && event->run_attempt > 0);
	int rc = job_read_where(t->tx, JOB_SELECT " WHERE j.github_job_id = $1 AND j.run_attempt = $2 FOR UPDATE OF j",
				SQL_ARGS(sql_i64(event->job_id), sql_i64(event->run_attempt)), t->arena, ret, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return fold_new(t, fold, ret, err);
	return event->action > ret->github_rank ? fold_known(t, fold, ret, err) : GITHUB_FOLD_STALE;
}
