#include "agent/job/end.h"

#include <string.h>

#include "agent/chores.h"
#include "agent/job/move.h"
#include "agent/job/renew.h"
#include "agent/job/report.h"
#include "agent/job/shim.h"
#include "agent/metrics.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"

enum { REVIVALS_MAX = 3 };

static const int64_t crowded_ns = NS_PER_S; /* until the worker has room again */

void job_write_row(struct agent_job *j, enum state_stage stage, state_done_fn done)
{
	struct state_job row = {
		.job_id = j->job_id,
		.attempt = j->attempt,
		.fence = j->lease.fence,
		.vcpus = j->vcpus,
		.memory_mb = j->memory_mb,
		.stage = stage,
		.result = j->result,
	};

	j->busy++;
	state_put(j->agent->state, &row, done, j);
}

static void count_end(struct agent_job *j)
{
	static const struct {
		const char *status;
		size_t metric;
	} counters[] = {
		{"succeeded", M_JOBS_SUCCEEDED}, {"failed", M_JOBS_FAILED}, {"timed_out", M_JOBS_FAILED},
		{"cancelled", M_JOBS_CANCELLED}, {"lost", M_JOBS_LOST},
	};
	struct metrics *m = j->agent->metrics;

	for (size_t i = 0; i < ARRAY_LEN(counters); i++)
		if (strcmp(j->result.status, counters[i].status) == 0)
			metrics_inc(m, counters[i].metric);
	if (strcmp(j->result.status, "timed_out") == 0) {
		metrics_inc(m, M_JOB_TIMEOUTS);
		metrics_set(m, M_LAST_TIMEOUT, (double)clock_unix_ns() / (double)NS_PER_S);
	}
	if (j->result.last_seq > 0)
		metrics_add(m, M_LOG_ROWS, (uint64_t)j->result.last_seq);
}

static void on_result_written(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;

	j->busy--;
	if (err != NULL)
		log_error("a job's result could not be written down: reporting it all the same", F("job", j->job_id),
			  F("error", err));
	else if (j->link != NULL)
		job_shim_send(j, SHIM_EXIT_ACK);
	job_enter(j, LIFE_REPORTING);
	job_report(j, REPORT_END);
}

void job_end(struct agent_job *j, const struct job_result *r)
{
	j->result = *r;
	j->result.message = r->message != NULL ? xstrdup(r->message) : NULL;
	log_info("job ended", F("job", j->job_id), F("attempt", j->attempt), F("status", r->status),
		 F("reason", r->reason), F("exit_code", r->exit_code), F("signal", r->signal),
		 F("last_seq", r->last_seq), F("message", r->message != NULL ? r->message : ""));
	count_end(j);
	if (j->link != NULL) /* that it was not overdue is clear now; a shim that is to go keeps its guard */
		loop_source_free(TAKE(j->guard));
	job_enter(j, LIFE_ENDED);
	job_write_row(j, STATE_ENDED, on_result_written);
}

void job_end_plainly(struct agent_job *j, const char *status, const char *reason, const char *message)
{
	autofree char *copy = xstrdup(message);

	job_end(j, &(struct job_result){.status = status,
					.reason = reason,
					.message = copy,
					.exit_code = -1,
					/* It had no VM, so its whole log is empty; of a lost one nobody knows. */
					.last_seq = strcmp(status, "lost") == 0 ? -1 : 0});
}

void job_end_lost(struct agent_job *j, const char *message)
{
	job_end_plainly(j, "lost", "vm_lost", message);
}

/* --- lost --- */

void job_lost(struct agent_job *j, const char *why)
{
	job_renew_stop(j);
	/* With a result nothing runs any more: whether the control plane still wants it, the report will show. */
	if (j->life == LIFE_ENDED || j->life == LIFE_REPORTING || j->life == LIFE_LOST || j->life == LIFE_CLOSING)
		return;
	log_warn("a lease is lost: its VM is destroyed", F("job", j->job_id), F("attempt", j->attempt),
		 F("fence", j->lease.fence), F("life", job_life_text(j->life)), F("why", why));
	metrics_inc(j->agent->metrics, M_LEASES_LOST);
	job_report_stop(j);
	job_enter(j, LIFE_LOST);
	if (j->link != NULL) {
		job_shim_send(j, SHIM_DESTROY);
		job_shim_expect_end(j);
	} else if (j->busy == 0) {
		job_close(j);
	}
}

/* --- closing --- */

static void forget(struct agent_job *j)
{
	struct agent *a = j->agent;

	job_free(j);
	a->changed(a);
}

static void on_row_deleted(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;

	/* Then the next agent finds it, reports it once more and is told that it is old. */
	if (err != NULL)
		log_warn("a job's row could not be deleted", F("job", j->job_id), F("error", err));
	forget(j);
}

/* Nothing of an acknowledged log is lost with the shim that should have shipped it. */
static void close_folder(void *ctx)
{
	struct agent_job *j = ctx;
	const struct vm_host *host = &j->agent->host;
	char name[VM_FOLDER_NAME_SIZE];

	(void)vm_folder_name(j->job_id, j->attempt, name);
	/* One of the pool whose folder never became the job's. */
	if (j->spare[0] != '\0' && vm_folder_remove(host->vms_fd, j->spare, &j->work_err) != 0)
		return;
	if (j->result.last_seq > 0 && j->revivals < REVIVALS_MAX && vm_folder_has_spool(host->vms_fd, name)) {
		(void)!vm_folder_revive(host, name, &j->prepared, &j->work_err);
		return;
	}
	/* After so many tries it is left to the next agent. */
	if (j->result.last_seq > 0 && vm_folder_has_spool(host->vms_fd, name))
		(void)err_set(&j->work_err, ERR_IO, "it holds log lines that could not be shipped");
	else if (vm_folder_remove(host->vms_fd, name, &j->work_err) == VM_FOLDER_BUSY)
		(void)err_set(&j->work_err, ERR_CONFLICT, "a shim lives in it");
}

static void on_folder_closed(void *ctx)
{
	struct agent_job *j = ctx;

	if (j->prepared.socket >= 0) {
		j->busy--;
		j->revivals++;
		j->counted = (struct shim_shipping){0};
		log_info("a shim died before it had shipped its log: another ships the rest", F("job", j->job_id));
		if (job_shim_take(j, &j->work_err) == 0) {
			job_shim_send(j, SHIM_RESUME);
			job_shim_show_pipeline(j, 0);
		}
		return;
	}
	if (j->work_err.code == 0) {
		state_delete(j->agent->state, j->job_id, j->attempt, on_row_deleted, j);
		return;
	}
	/* The row stays with the folder: only it says that there are lines to be shipped. */
	log_warn("a VM's folder could not be removed: the next start tries again", F("job", j->job_id),
		 F("error", &j->work_err));
	forget(j);
}

static void close_again(void *ctx)
{
	job_close_further(ctx);
}

/* Folder, row, record, in this order. */
void job_close_further(struct agent_job *j)
{
	if (j->life != LIFE_CLOSING || j->busy > 0 || j->link != NULL || j->shim_exit != NULL)
		return;
	j->busy++;
	j->work_err = (struct err){0};
	loop_source_free(TAKE(j->guard));
	if (chores_give(j->agent->chores, close_folder, on_folder_closed, j))
		return;
	j->busy--;
	job_shim_guard(j, close_again, crowded_ns);
}

void job_close(struct agent_job *j)
{
	job_report_stop(j);
	job_enter(j, LIFE_CLOSING);
	j->agent->changed(j->agent);
	job_close_further(j);
}
