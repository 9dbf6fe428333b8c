#include "base/log.h"
#include "base/queue.h"
#include "control/control_metrics.h"
#include "control/handlers.h"
#include "control/waits.h"

/* Which label value of the metric a final state is. */
static const size_t ended_values[JOB_STATE_COUNT] = {
	[JOB_SUCCEEDED] = 0, [JOB_FAILED] = 1, [JOB_CANCELLED] = 2, [JOB_TIMED_OUT] = 3, [JOB_DEAD] = 4,
};

static void count(struct app *app, const struct job_event *e)
{
	if (e->type == JOB_EVENT_CREATED)
		metrics_inc(app->metrics, M_JOBS_CREATED);
	if (e->type == JOB_EVENT_HELD)
		metrics_inc(app->metrics, M_ORG_LIMITS);
	if (job_state_final(e->to) && e->from != e->to)
		metrics_add_at(app->metrics, M_JOBS_ENDED, ended_values[e->to], 1);
	if (e->type != JOB_EVENT_MOVED)
		return;
	if (e->to == JOB_QUEUED && job_state_live(e->from))
		metrics_inc(app->metrics, M_JOBS_REQUEUED);
	if (e->to == JOB_LEASED) {
		metrics_inc(app->metrics, M_LEASES);
		metrics_observe_ns(app->metrics, M_LEASE_LATENCY, e->at - e->queued_at);
	}
}

/* Its shim may have said so itself. */
static void tell_session(struct app *app, const struct job_event *e)
{
	const struct session_exit exit = {
		.code = (int32_t)e->exit_code,
		.signal = (uint32_t)e->signal,
		.queued_ns = -1,
		.vm_ns = -1,
		.ran_ns = -1,
		.gone_ns = -1,
		.reason = e->reason != NULL ? e->reason : job_state_text(e->to),
		.text = e->message != NULL ? e->message : "",
	};

	sessions_job_ended(app->sessions, e->job_id, &exit);
}

void session_job_ended(struct app *app, const struct job *job)
{
	tell_session(app, &(struct job_event){.job_id = job->id,
					      .to = job->state,
					      .reason = job->reason,
					      .message = job->message,
					      .exit_code = job->exit_code,
					      .signal = job->signal});
}

static const char *const event_names[] = {
	[JOB_EVENT_CREATED] = "job created",
	[JOB_EVENT_MOVED] = "job moved",
	[JOB_EVENT_CANCEL_REQUESTED] = "cancel requested",
	[JOB_EVENT_HELD] = "job held back",
};

void control_event(void *ctx, const struct job_event *e)
{
	struct app *app = ctx;

	if (e->type != JOB_EVENT_CANCEL_REQUESTED)
		count(app, e);
	log_info(event_names[e->type], F("job", e->job_id), F("from", job_state_text(e->from)),
		 F("to", job_state_text(e->to)), F("reason", e->reason != NULL ? e->reason : ""),
		 F("agent", e->agent_id != NULL ? e->agent_id : ""));
	if (e->type != JOB_EVENT_CANCEL_REQUESTED && e->to == JOB_QUEUED)
		if (!lease_wake(app, &(struct ready_job){e->job_id, e->labels, e->vcpus, e->memory_mb}))
			peers_tell_job(app->peers, e->job_id);
	if (e->type == JOB_EVENT_CANCEL_REQUESTED && e->agent_id != NULL)
		if (!commands_wake(app, e->agent_id))
			peers_tell_agent(app->peers, e->agent_id);
	if (e->from != e->to && job_state_final(e->to))
		tell_session(app, e);
	/* Where there is no room its files wait for the sweep. */
	if (e->has_files && job_state_final(e->to))
		(void)!queue_try_push(app->files_ended, (void *)(uintptr_t)e->job_id);
	if (e->seal_due)
		worker_wake(app->log_sealer);
}
