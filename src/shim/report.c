#include "shim/report.h"

#include <unistd.h>

static void report_hello(const struct report *r)
{
	const struct shim_start *job = r->job;

	link_send(r->link, &(struct shim_msg){.type = SHIM_HELLO,
					      .hello = {.pid = getpid(),
							.job_id = job->job_id,
							.attempt = job->attempt,
							.fence = job->fence,
							.vcpus = job->vcpus,
							.memory_mb = job->memory_mb,
							.deadline_ns = job->deadline_ns}});
}

void report_booted(const struct report *r)
{
	if (r->booted.guest_answered_ns != 0)
		link_send(r->link, &(struct shim_msg){.type = SHIM_BOOTED, .booted = r->booted});
}

void report_running(const struct report *r)
{
	if (r->running.started_ns != 0)
		link_send(r->link, &(struct shim_msg){.type = SHIM_RUNNING, .running = r->running});
}

void report_exited(const struct report *r)
{
	if (r->ended && !r->acknowledged)
		link_send(r->link, &(struct shim_msg){.type = SHIM_EXITED, .exited = r->exited});
}

void report_all(const struct report *r)
{
	report_hello(r);
	report_booted(r);
	report_running(r);
	report_exited(r);
}
