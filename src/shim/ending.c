#include "shim/ending.h"

#include "base/clock.h"

bool ending_count_services(struct ending *e)
{
	return outside_count(e->outside, job_vm_channel(e->vm), &e->report->exited.served);
}

int64_t ending_vm_ns(const struct ending *e)
{
	int64_t answered_ns = e->report->booted.guest_answered_ns;

	return answered_ns != 0 ? answered_ns - e->start_ns : -1;
}

static void drop_services(struct ending *e)
{
	(void)ending_count_services(e);
	for (size_t i = 0; i < SHIM_SERVICE_COUNT; i++)
		e->report->exited.served.each[i].streams = 0;
	outside_drop_services(e->outside);
}

/* Whoever reads the log sees why it ends, where the job itself did not say. */
static void close_log(struct ending *e)
{
	int64_t reason = e->report->exited.reason;
	bool clear = reason == SHIM_REASON_EXIT || reason == SHIM_REASON_LEASE_LOST;

	outside_close_log(e->outside, clear ? NULL : e->message);
}

bool ending_settle(struct ending *e)
{
	struct shim_exited *exited = &e->report->exited;

	drop_services(e);
	if (e->facts.last_words == NULL)
		e->facts.last_words = job_vm_last_words(e->vm);
	outcome_of(&e->facts, e->message, exited);
	close_log(e);
	if (e->facts.stop != STOP_LEASE && !outside_durable(e->outside))
		return false;
	exited->last_seq = outside_last_seq(e->outside);
	exited->shipping = outside_shipping(e->outside);
	exited->restarts = job_vm_restarts(e->vm);
	exited->started_at = e->report->running.started_at;
	exited->ended_at = clock_unix_ns();
	e->report->ended = true;
	return true;
}

static void tell_client(struct ending *e)
{
	const struct shim_exited *exited = &e->report->exited;
	int64_t now_ns = clock_monotonic_ns();
	int64_t started_ns = e->report->running.started_ns;
	int64_t ended_ns = e->exited_ns != 0 ? e->exited_ns : now_ns;

	outside_exit(e->outside, &(struct session_exit){
					 .code = (int32_t)exited->exit_code,
					 .signal = (uint32_t)exited->signal,
					 .queued_ns = e->report->job->queued_ns,
					 .vm_ns = ending_vm_ns(e),
					 .ran_ns = started_ns != 0 ? ended_ns - started_ns : -1,
					 .gone_ns = e->exited_ns != 0 ? now_ns - ended_ns : -1,
					 .reason = shim_reason_name((enum shim_reason)exited->reason),
					 .text = exited->reason == SHIM_REASON_EXIT ? "" : e->message,
				 });
}

void ending_tell(struct ending *e)
{
	report_exited(e->report);
	tell_client(e);
}

void ending_settle_lost(struct ending *e)
{
	outcome_of(&e->facts, e->message, &e->report->exited);
	report_exited(e->report);
}
