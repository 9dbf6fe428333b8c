#include "agent/job/resume.h"

#include "agent/job/end.h"
#include "agent/job/move.h"
#include "agent/job/renew.h"
#include "agent/job/report.h"
#include "agent/job/shim.h"
#include "agent/metrics.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"

static const int64_t reconnect_ns = 200 * NS_PER_MS; /* to one that does not listen yet */

static void resume_without_shim(struct agent_job *j)
{
	if (j->result.status != NULL) {
		job_enter(j, LIFE_REPORTING);
		job_report(j, REPORT_END);
	} else if (j->lease.fence != 0) {
		job_end_lost(j, "its VM died while no agent was there");
	} else {
		job_close(j); /* a folder that nobody knows */
	}
}

void job_shim_found(struct agent_job *j, const struct shim_hello *h)
{
	if (j->shim_is_child)
		return;
	if (j->shim.pidfd < 0)
		job_shim_hold(j, (pid_t)h->pid);
	if (h->job_id == j->job_id && h->attempt == j->attempt)
		job_shim_show_pipeline(j, h->deadline_ns);
	if (j->life != LIFE_ADOPTED)
		return;
	if (h->job_id != j->job_id || h->attempt != j->attempt) {
		/* It was never given its orders, and ends without an agent. */
		job_shim_drop(j);
		resume_without_shim(j);
		return;
	}
	if (j->vcpus == 0)
		job_take_slot(j, h->vcpus, h->memory_mb);
	j->lease = lease_adopted(h->fence, h->deadline_ns, clock_monotonic_ns());
	metrics_inc(j->agent->metrics, M_JOBS_ADOPTED);
	log_info("job adopted", F("job", j->job_id), F("attempt", j->attempt), F("fence", h->fence), F("pid", h->pid));
	job_renew(j, false);
	j->agent->changed(j->agent);
}

static void resume_with(struct agent_job *j, int socket)
{
	struct err err = {0};

	loop_source_free(TAKE(j->guard));
	if (job_shim_adopt(j, socket, &err) < 0)
		log_error("cannot talk to a shim", F("job", j->job_id), F("error", &err));
	/* The result is known: what the shim still has to do is ship. */
	if (j->result.status != NULL) {
		job_enter(j, LIFE_REPORTING);
		job_report(j, REPORT_END);
	}
}

static void connect_again(void *ctx);

void job_seek_shim(struct agent_job *j)
{
	char name[VM_FOLDER_NAME_SIZE];
	struct err err = {0};
	int socket = -1;

	int rc = vm_folder_connect(j->agent->host.vms_fd, vm_folder_name(j->job_id, j->attempt, name), &socket, &err);
	if (rc == VM_FOLDER_BUSY)
		job_shim_guard(j, connect_again, reconnect_ns);
	else if (rc == 0)
		resume_with(j, socket);
	else
		resume_without_shim(j);
}

static void connect_again(void *ctx)
{
	job_seek_shim(ctx);
}
