#include "agent/job/start.h"

#include "agent/chores.h"
#include "agent/job/end.h"
#include "agent/job/move.h"
#include "agent/job/renew.h"
#include "agent/job/report.h"
#include "agent/job/shim.h"
#include "agent/metrics.h"
#include "agent/templates.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

/* How much longer than its limit a job may take before its shim, which should have ended it, counts as hung. */
static const int64_t overdue_ns = 300 * NS_PER_S;

bool job_end_early(struct agent_job *j)
{
	if (j->life == LIFE_LOST)
		job_close(j);
	else if (j->give_back)
		job_end_lost(j, "the agent was stopped");
	else if (j->cancelled)
		job_end_plainly(j, "cancelled", "cancelled", "cancelled before its VM was started");
	else
		return false;
	return true;
}

static void prepare(void *ctx)
{
	struct agent_job *j = ctx;

	(void)!vm_folder_start(&j->agent->host,
			       &(struct vm_order){.job_id = j->job_id,
						  .attempt = j->attempt,
						  .image = j->order->image,
						  .image_digest = j->order->image_digest,
						  .disk_mb = j->order->disk_mb,
						  .template = j->template.name[0] != '\0' ? &j->template : NULL},
			       &j->prepared, &j->work_err);
}

/* What is the job's own fault fails it; what is this host's gives it back. */
static void end_unprepared(struct agent_job *j, const struct err *err)
{
	bool own = err->code == ERR_NOT_FOUND || err->code == ERR_INVALID || err->code == ERR_INVALID_FIELD ||
		   err->code == ERR_TOO_LARGE || err->code == ERR_UNSUPPORTED;

	log_error("a job cannot be started here", F("job", j->job_id), F("error", err));
	if (own)
		job_end_plainly(j, "failed", "start_failed", err->msg);
	else
		job_end_plainly(j, "lost", "start_failed", err->msg);
}

static void on_overdue(void *ctx)
{
	struct agent_job *j = ctx;

	log_error("a job is far over its limit: its shim hangs, killing it", F("job", j->job_id));
	job_shim_kill(j);
}

static void give_orders(struct agent_job *j)
{
	struct err err = {0};

	if (job_shim_start(j, &err) == 0) {
		metrics_inc(j->agent->metrics, M_JOBS_STARTED);
		j->image = j->prepared.image;
		job_enter(j, LIFE_BOOTING);
		job_shim_guard(j, on_overdue, job_timeout(j) + j->agent->settings->vm_shutdown_grace + overdue_ns);
		job_report(j, REPORT_STARTING);
	} else {
		job_shim_drop(j);
		end_unprepared(j, &err);
	}
}

/* A template that was not used, and why, whatever became of the job. */
static void tell_template(struct agent_job *j)
{
	if (j->prepared.template == VM_TEMPLATE_STALE)
		templates_stale(j->agent->templates, j->template.name);
	else if (j->prepared.template == VM_TEMPLATE_BROKEN)
		templates_broken(j->agent->templates, j->template.name, j->prepared.template_err.msg);
	if (j->prepared.template != VM_TEMPLATE_USED)
		j->template.name[0] = '\0';
}

/* All that is to be there for the orders: the fence was found good, the row is written, the shim waits. */
static void go_further(struct agent_job *j)
{
	if (j->busy > 0)
		return;
	if (j->life != LIFE_LEASED && j->life != LIFE_LOST) {
		job_close_further(j);
		return;
	}
	struct err err = j->work_err;
	if (j->life == LIFE_LOST || err.code != 0 || j->give_back || j->cancelled) {
		/* A shim without orders ends when its agent lets go of it. */
		job_shim_drop(j);
		if (!job_end_early(j))
			end_unprepared(j, &err);
	} else if (j->fence_good) {
		give_orders(j);
	} else {
		return;
	}
	vm_shim_fini(&j->prepared);
	job_forget_order(j);
}

static void on_prepared(void *ctx)
{
	struct agent_job *j = ctx;

	j->busy--;
	j->times.prepared_ns = clock_monotonic_ns();
	tell_template(j);
	if (j->prepared.socket >= 0 && job_shim_take(j, &j->work_err) == 0 && j->life != LIFE_LEASED)
		job_shim_drop(j);
	go_further(j);
}

static void on_recorded(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;

	j->busy--;
	if (err != NULL && j->work_err.code == 0)
		j->work_err = *err;
	go_further(j);
}

void job_start(struct agent_job *j)
{
	j->times.decided_ns = clock_monotonic_ns();
	job_renew(j, false);
	job_write_row(j, STATE_STARTED, on_recorded);
	if (!templates_ask(j->agent->templates, j->order, &j->template))
		j->template.name[0] = '\0';
	if (chores_give(j->agent->chores, prepare, on_prepared, j))
		j->busy++;
	else
		(void)err_set(&j->work_err, ERR_UNAVAILABLE, "this host has too much to do");
}

void job_fence_checked(struct agent_job *j, const struct js *secret_env)
{
	if (j->life == LIFE_LEASED) {
		j->fence_good = true;
		go_further(j);
	} else if (j->life == LIFE_CHECKING && j->secrets_asked) {
		job_shim_go(j, secret_env);
		job_enter(j, LIFE_GOING);
	}
}
