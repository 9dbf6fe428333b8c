#include "agent/job/report.h"

#include <inttypes.h>
#include <stdio.h>

#include "agent/control_client.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "net/loop.h"

static const int64_t report_timeout_ns = 10 * NS_PER_S;
static const int64_t report_retry_base_ns = 500 * NS_PER_MS;
static const int64_t report_retry_max_ns = 15 * NS_PER_S;

enum { BOOT_PAIRS = 15, BOOT_TEXT_SIZE = 24 };

struct boot_pairs {
	struct js_pair items[BOOT_PAIRS];
	char texts[BOOT_PAIRS][BOOT_TEXT_SIZE];
	size_t count;
};

static void add_ms(struct boot_pairs *p, const char *key, int64_t ns)
{
	char *text = p->texts[p->count];

	(void)snprintf(text, BOOT_TEXT_SIZE, "%" PRId64 ".%" PRId64, ns / NS_PER_MS, ns / (NS_PER_MS / 10) % 10);
	p->items[p->count++] = (struct js_pair){key, text};
}

static const char *verity_state(const struct agent_job *j)
{
	if (j->verity)
		return "enforced";
	return j->image.has_verity ? "not enforced: the guest's kernel has no driver"
				   : "none: the image has no hash tree";
}

static void add_times(const struct job_times *t, struct boot_pairs *p)
{
	p->items[p->count++] = (struct js_pair){"boot.accel", t->accel};
	if (t->leased_ns != 0)
		add_ms(p, "boot.vmm_ms", t->vmm_started_ns - t->leased_ns);
	/* From the decision to make a VM to the guest's acknowledgement, and the parts of that. */
	if (t->decided_ns != 0)
		add_ms(p, "boot.decided_ms", t->answered_ns - t->decided_ns);
	if (t->prepared_ns != 0) {
		add_ms(p, "boot.prepare_ms", t->prepared_ns - t->decided_ns);
		add_ms(p, "boot.shim_ms", t->vmm_started_ns - t->prepared_ns);
	}
	if (t->waited_ns != 0)
		add_ms(p, "boot.waited_ms", t->waited_ns);
	if (t->early)
		p->items[p->count++] = (struct js_pair){"boot.early", "true"};
	if (t->vmm_up_ns != 0)
		add_ms(p, "boot.exec_ms", t->vmm_up_ns - t->vmm_started_ns);
	if (t->restored_ns != 0) {
		if (t->vmm_up_ns != 0)
			add_ms(p, "boot.restore_ms", t->restored_ns - t->vmm_up_ns);
		add_ms(p, "boot.ack_ms", t->answered_ns - t->restored_ns);
	} else {
		add_ms(p, "boot.kernel_ms", t->kernel_ns);
	}
	add_ms(p, "boot.hello_ms", t->answered_ns - t->vmm_started_ns);
	add_ms(p, "boot.job_ms", t->running_ns - t->answered_ns);
}

/* What booted, and how long the parts of that took: for people and for the benchmark. */
static struct js_pairs boot_pairs(const struct agent_job *j, struct boot_pairs *p)
{
	const struct job_times *t = &j->times;

	if (j->image.digest[0] != '\0' && t->answered_ns != 0) {
		p->items[p->count++] = (struct js_pair){"rootfs_hash", j->image.digest};
		p->items[p->count++] = (struct js_pair){"rootfs_verity", verity_state(j)};
	}
	if (t->vmm_started_ns != 0 && t->answered_ns != 0 && t->running_ns != 0)
		add_times(t, p);
	return (struct js_pairs){p->items, p->count};
}

static struct js *encode_report(const struct agent_job *j, enum report_step step)
{
	struct boot_pairs pairs = {0};
	struct status_report r = {
		.agent_id = j->agent->id,
		.job_id = j->job_id,
		.fence_token = j->lease.fence,
		.attempt = j->attempt,
		.exit_code = -1,
		.last_seq = -1,
		.status = "starting",
	};

	if (step == REPORT_RUNNING) {
		r.status = "running";
		r.metadata = boot_pairs(j, &pairs);
	}
	if (step == REPORT_END) {
		r.status = j->result.status;
		r.reason = j->result.reason;
		r.message = j->result.message;
		r.exit_code = j->result.exit_code;
		r.signal = j->result.signal;
		r.last_seq = j->result.last_seq;
		r.metadata = boot_pairs(j, &pairs);
	}
	return status_report_encode(&r);
}

static void tell(struct agent_job *j);

static void on_timer(void *ctx)
{
	tell(ctx);
}

static void tell_later(struct agent_job *j, int64_t wait_ns)
{
	struct err err = {0};
	int64_t at = clock_monotonic_ns() + wait_ns;

	if (j->report_timer != NULL)
		loop_timer_set(j->report_timer, at);
	else if (loop_add_timer(j->agent->loop, at, LOOP_NORMAL, on_timer, j, &j->report_timer, &err) < 0)
		out_of_memory(); /* a timer needs nothing else */
}

static void on_failed(struct agent_job *j, const struct control_answer *answer)
{
	int64_t wait = http_backoff(j->report_failures, report_retry_base_ns, report_retry_max_ns);

	if (j->report_failures++ == 0)
		log_warn("a job's status could not be reported: trying again until it is taken or refused",
			 F("job", j->job_id), F("error", answer->err));
	tell_later(j, wait > answer->retry_after_ns ? wait : answer->retry_after_ns);
}

static void on_answer(void *ctx, const struct control_answer *answer)
{
	struct agent_job *j = ctx;

	j->report_call = NULL;
	if (answer->err != NULL && !answer->refused) {
		on_failed(j, answer);
		return;
	}
	j->report_failures = 0;
	j->told = j->telling;
	if (answer->err != NULL)
		log_warn("the control plane refuses a job's status", F("job", j->job_id), F("attempt", j->attempt),
			 F("error", answer->err));
	if (j->told == REPORT_END)
		j->events->reported(j);
	else if (answer->lease_is_over)
		j->events->lost(j, answer->err->msg);
	else if (j->to_tell > j->told)
		tell(j);
}

static void tell(struct agent_job *j)
{
	j->telling = j->to_tell;
	j->report_call = control_post(j->agent->control, "/api/jobs/status", encode_report(j, j->telling),
				      report_timeout_ns, on_answer, j);
}

void job_report(struct agent_job *j, enum report_step step)
{
	if (step <= j->to_tell)
		return;
	j->to_tell = step;
	/* One at a time, so that they arrive in order. The end waits for nobody's back-off. */
	if (j->report_call == NULL) {
		loop_source_free(TAKE(j->report_timer));
		tell(j);
	}
}

void job_report_stop(struct agent_job *j)
{
	control_cancel(TAKE(j->report_call));
	loop_source_free(TAKE(j->report_timer));
}
