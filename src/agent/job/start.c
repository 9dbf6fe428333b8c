#include "agent/job/start.h"

#include "agent/chores.h"
#include "agent/job/end.h"
#include "agent/job/move.h"
#include "agent/job/renew.h"
#include "agent/job/report.h"
#include "agent/job/shim.h"
#include "agent/metrics.h"
#include "agent/pool.h"
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

static struct vm_order order_of(const struct agent_job *j)
{
	return (struct vm_order){.job_id = j->job_id,
				 .attempt = j->attempt,
				 .image = j->order->image,
				 .image_digest = j->order->image_digest,
				 .disk_mb = j->order->disk_mb,
				 .template = j->template.name[0] != '\0' ? &j->template : NULL};
}

/* On the worker. */
static void prepare(void *ctx)
{
	struct agent_job *j = ctx;
	struct vm_order order = order_of(j);

	if (j->spare[0] != '\0' && vm_folder_remove(j->agent->host.vms_fd, j->spare, &j->work_err) < 0)
		log_warn("the folder of a spare VM could not be removed: the next start tries again",
			 F("folder", j->spare), F("error", &j->work_err));
	j->spare[0] = '\0';
	j->work_err = (struct err){0};
	(void)!vm_folder_start(&j->agent->host, &order, &j->prepared, &j->work_err);
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

static void enter_booting(struct agent_job *j)
{
	metrics_inc(j->agent->metrics, M_JOBS_STARTED);
	job_enter(j, LIFE_BOOTING);
	job_shim_guard(j, on_overdue, job_timeout(j) + j->agent->settings->vm_shutdown_grace + overdue_ns);
	job_report(j, REPORT_STARTING);
}

static void give_orders(struct agent_job *j)
{
	struct err err = {0};

	if (job_shim_start(j, &err) == 0) {
		j->image = j->prepared.image;
		enter_booting(j);
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

/* --- an ordinary VM --- */

static void on_prepared(void *ctx)
{
	struct agent_job *j = ctx;

	j->busy--;
	j->times.prepared_ns = clock_monotonic_ns();
	tell_template(j);
	if (j->prepared.socket >= 0 && job_shim_take(j, &j->work_err) == 0 && j->life != LIFE_LEASED)
		job_shim_drop(j);
	job_start_further(j);
}

static void begin_ordinary(struct agent_job *j)
{
	if (chores_give(j->agent->chores, prepare, on_prepared, j))
		j->busy++;
	else
		(void)err_set(&j->work_err, ERR_UNAVAILABLE, "this host has too much to do");
}

/* --- one of the pool --- */

/* On the worker: what it was begun from is still what the job needs, and its folder becomes the job's. */
static void hand_over(void *ctx)
{
	struct agent_job *j = ctx;
	struct vm_order order = order_of(j);

	j->hand_over_rc = vm_folder_hand_over(&j->agent->host, j->spare, &order, &j->prepared.image, &j->hand_over_err);
}

static void on_handed_over(void *ctx)
{
	struct agent_job *j = ctx;

	j->busy--;
	if (j->hand_over_rc == 0) {
		j->spare[0] = '\0';
		j->image = j->prepared.image;
	} else if (j->life == LIFE_LEASED && j->from_pool) {
		job_refill(j, j->hand_over_err.msg);
	}
	job_start_further(j);
}

/* The guest hears who it is at once, and no more than that: a job and its secrets come when all else is well. */
static bool begin_from_pool(struct agent_job *j)
{
	struct err err = {0};
	const struct vm_template *template = j->template.name[0] != '\0' ? &j->template : NULL;

	if (!pool_take(j->agent->pool, j->order, template, &j->prepared, j->spare))
		return false;
	j->from_pool = true;
	int rc = job_shim_take(j, &err);
	if (rc == 0)
		rc = job_shim_start(j, &err);
	vm_shim_fini(&j->prepared);
	if (rc < 0)
		job_refill(j, err.msg);
	else if (chores_give(j->agent->chores, hand_over, on_handed_over, j))
		j->busy++;
	else
		job_refill(j, "this host has too much to do");
	return true;
}

void job_refill(struct agent_job *j, const char *why)
{
	log_warn("a spare VM is of no use: an ordinary one is made", F("job", j->job_id), F("why", why));
	pool_wasted(j->agent->pool);
	j->from_pool = false;
	j->guest_up = false;
	j->refill = true;
	job_shim_kill(j);
	job_shim_drop(j);
	job_start_further(j);
}

/* --- all that is to be there --- */

static bool is_over(struct agent_job *j)
{
	/* One that has its orders says itself how it ends. */
	bool told = j->from_pool && j->life == LIFE_LEASED;

	return j->life == LIFE_LOST || j->work_err.code != 0 || (!told && (j->give_back || j->cancelled));
}

static void end_start(struct agent_job *j)
{
	struct err err = j->work_err;

	/* A shim without orders ends when its agent lets go of it. */
	if (j->from_pool)
		job_shim_kill(j);
	job_shim_drop(j);
	if (!job_end_early(j))
		end_unprepared(j, &err);
	vm_shim_fini(&j->prepared);
	job_forget_order(j);
}

static void go(struct agent_job *j)
{
	job_shim_go(j, j->secret_env);
	js_free(TAKE(j->secret_env));
	j->from_pool = false;
	job_enter(j, LIFE_GOING);
}

static void check_from_pool(struct agent_job *j)
{
	enter_booting(j);
	job_forget_order(j);
	job_enter(j, LIFE_CHECKING);
	if (j->times.waited_ns == 0) {
		/* It was not ready yet, or has booted instead: a VM that did not wait when the fence was looked at. */
		j->fence_good = false;
		j->secrets_asked = false;
		job_renew(j, true);
	} else if (j->fence_good) {
		go(j);
	}
}

void job_start_further(struct agent_job *j)
{
	if (j->busy > 0)
		return;
	if (j->life != LIFE_LEASED && j->life != LIFE_LOST && j->life != LIFE_CHECKING) {
		job_close_further(j);
	} else if (j->life == LIFE_CHECKING) {
		if (j->fence_good)
			go(j);
	} else if (is_over(j)) {
		end_start(j);
	} else if (j->refill) {
		if (j->shim_exit == NULL) {
			j->refill = false;
			begin_ordinary(j);
		}
	} else if (j->from_pool && j->guest_up) {
		check_from_pool(j);
	} else if (!j->from_pool && j->fence_good) {
		give_orders(j);
		vm_shim_fini(&j->prepared);
		job_forget_order(j);
	}
}

static void on_recorded(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;

	j->busy--;
	if (err != NULL && j->work_err.code == 0)
		j->work_err = *err;
	job_start_further(j);
}

void job_leased(struct agent_job *j)
{
	j->times.decided_ns = clock_monotonic_ns();
	if (!templates_ask(j->agent->templates, j->order, &j->template))
		j->template.name[0] = '\0';
	if (!begin_from_pool(j))
		begin_ordinary(j);
	/* A VM that exists already: one look at the fence is enough. */
	job_renew(j, j->from_pool);
	job_write_row(j, STATE_STARTED, on_recorded);
	pool_look(j->agent->pool);
}

void job_guest_up(struct agent_job *j)
{
	if (j->from_pool) {
		j->guest_up = true;
		job_start_further(j);
		return;
	}
	job_enter(j, LIFE_CHECKING);
	/* The fence once more, and only then the secrets. */
	j->fence_good = false;
	job_renew(j, true);
}

void job_fence_checked(struct agent_job *j, const struct js *secret_env)
{
	if (j->life != LIFE_LEASED && !(j->life == LIFE_CHECKING && j->secrets_asked))
		return;
	/* Of a VM of the pool, asked for when it was there already. */
	if (j->life == LIFE_CHECKING || j->from_pool) {
		if (!j->secrets_asked)
			return;
		js_free(j->secret_env);
		j->secret_env = secret_env != NULL ? js_copy(secret_env) : NULL;
	}
	j->fence_good = true;
	job_start_further(j);
}
