#include "agent/job/job.h"

#include "agent/job/end.h"
#include "agent/job/move.h"
#include "agent/job/renew.h"
#include "agent/job/report.h"
#include "agent/job/resume.h"
#include "agent/job/shim.h"
#include "agent/job/start.h"
#include "agent/metrics.h"
#include "agent/templates.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"

static void on_booted(struct agent_job *j, const struct shim_booted *b)
{
	if (j->life != LIFE_BOOTING && j->life != LIFE_ADOPTED && !(j->life == LIFE_LEASED && j->from_pool))
		return;
	j->times.vmm_started_ns = b->vmm_started_ns;
	j->times.vmm_up_ns = b->vmm_up_ns;
	j->times.restored_ns = b->restored_ns;
	j->times.answered_ns = b->guest_answered_ns;
	j->times.kernel_ns = b->kernel_ns;
	j->times.waited_ns = b->waited_ns;
	j->times.early = b->early != 0;
	(void)snprintf(j->times.accel, sizeof(j->times.accel), "%s", b->accel != NULL ? b->accel : "");
	j->verity = b->verity != 0;
	if (b->restored_ns != 0)
		metrics_inc(j->agent->metrics, M_CLONES);
	if (b->template_error != NULL && j->template.name[0] != '\0')
		templates_broken(j->agent->templates, j->template.name, b->template_error);
	log_info("vm is up", F("job", j->job_id), F("accel", j->times.accel),
		 F("ms", (b->guest_answered_ns - b->vmm_started_ns) / NS_PER_MS));
	job_guest_up(j);
}

static void on_running(struct agent_job *j, const struct shim_running *r)
{
	if (j->life != LIFE_CHECKING && j->life != LIFE_GOING && j->life != LIFE_ADOPTED)
		return;
	j->times.running_ns = r->started_ns;
	job_enter(j, LIFE_RUNNING);
	job_report(j, REPORT_RUNNING);
}

static struct job_result result_of(const struct shim_exited *e)
{
	static const char *const statuses[SHIM_REASON_COUNT] = {
		[SHIM_REASON_EXIT] = "failed",	       [SHIM_REASON_SIGNAL] = "failed",
		[SHIM_REASON_OOM] = "failed",	       [SHIM_REASON_TIMEOUT] = "timed_out",
		[SHIM_REASON_CANCELLED] = "cancelled", [SHIM_REASON_VM_LOST] = "lost",
		[SHIM_REASON_GUEST_LOST] = "failed",   [SHIM_REASON_START_FAILED] = "failed",
		[SHIM_REASON_LEASE_LOST] = "lost",
	};
	enum shim_reason reason = (enum shim_reason)e->reason;
	bool good = reason == SHIM_REASON_EXIT && e->exit_code == 0;

	return (struct job_result){
		.status = good ? "succeeded" : statuses[reason],
		/* Only the shim and the agent speak of lost leases. */
		.reason = shim_reason_name(reason == SHIM_REASON_LEASE_LOST ? SHIM_REASON_VM_LOST : reason),
		.exit_code = e->exit_code,
		.signal = e->signal,
		.last_seq = e->last_seq,
	};
}

/* A shim tells its totals: when its job has ended, and when all is shipped. */
static void count_shipping(struct agent_job *j, const struct shim_shipping *s)
{
	if (s->batches > j->counted.batches)
		metrics_add(j->agent->metrics, M_LOG_BATCHES, (uint64_t)(s->batches - j->counted.batches));
	if (s->errors > j->counted.errors)
		metrics_add(j->agent->metrics, M_LOG_ERRORS, (uint64_t)(s->errors - j->counted.errors));
	j->counted = *s;
}

static void count_up(struct agent_job *j, size_t metric, size_t value, int64_t before, int64_t now)
{
	if (now > before)
		metrics_add_at(j->agent->metrics, metric, value, (uint64_t)(now - before));
}

/* What a job's services were used for: totals too, told while it runs and when it has ended. */
static void count_served(struct agent_job *j, const struct shim_served *now)
{
	const struct shim_served *before = &j->served;

	for (size_t i = 0; i < SHIM_SERVICE_COUNT; i++) {
		count_up(j, M_SERVICE_REQUESTS, i, before->each[i].requests, now->each[i].requests);
		count_up(j, M_SERVICE_SENT, i, before->each[i].sent, now->each[i].sent);
		count_up(j, M_SERVICE_RECEIVED, i, before->each[i].received, now->each[i].received);
	}
	for (size_t i = 0; i < SHIM_REFUSAL_COUNT; i++)
		count_up(j, M_SERVICE_REFUSED, i, before->refused[i], now->refused[i]);
	j->served = *now;
	jobs_show(j->agent);
}

static void on_exited(struct agent_job *j, const struct shim_exited *e)
{
	count_shipping(j, &e->shipping);
	count_served(j, &e->served);
	if (j->life == LIFE_ENDED)
		return; /* acknowledged when it is written down */
	if (j->life == LIFE_REPORTING || j->life == LIFE_CLOSING) {
		job_shim_send(j, SHIM_EXIT_ACK);
		return;
	}
	if (j->life == LIFE_LOST) {
		job_shim_send(j, SHIM_EXIT_ACK);
		job_shim_drop(j);
		job_close(j);
		return;
	}
	struct metrics *m = j->agent->metrics;
	metrics_set(m, M_JOB_CPU_SECONDS, (double)(e->usage.user_ns + e->usage.system_ns) / (double)NS_PER_S);
	metrics_set(m, M_JOB_MEMORY_BYTES, (double)e->usage.max_rss_bytes);
	metrics_observe_ns(m, M_JOB_DURATION, e->usage.wall_ns);
	metrics_add(m, M_RESTARTS, (uint64_t)(e->restarts > 0 ? e->restarts : 0));
	struct job_result r = result_of(e);
	autofree char *message = j->give_back	      ? xstrdup("the agent was stopped")
				 : e->message != NULL ? xstrdup(e->message)
						      : NULL;
	r.message = message;
	job_end(j, &r);
}

/* --- what the rooms tell --- */

static void on_shim_says(struct agent_job *j, const struct shim_msg *m)
{
	switch (m->type) {
	case SHIM_HELLO:
		job_shim_found(j, &m->hello);
		break;
	case SHIM_BOOTED:
		on_booted(j, &m->booted);
		break;
	case SHIM_RUNNING:
		on_running(j, &m->running);
		break;
	case SHIM_EXITED:
		on_exited(j, &m->exited);
		break;
	case SHIM_SHIPPED: /* it goes now, and the link says so */
		count_shipping(j, &m->shipped);
		break;
	case SHIM_SERVED:
		count_served(j, &m->served);
		break;
	case SHIM_START:
	case SHIM_GO:
	case SHIM_DEADLINE:
	case SHIM_CANCEL:
	case SHIM_DESTROY:
	case SHIM_EXIT_ACK:
	case SHIM_RESUME:
	case SHIM_SESSION:
	case SHIM_SPARE:
	case SHIM_READY: /* of no job's shim */
		break;
	}
}

/* As long as no job was in it, one of the pool is only one that was of no use. */
static void shim_lost(struct agent_job *j, const char *why)
{
	if (j->life == LIFE_LEASED && j->from_pool && !j->give_back && !j->cancelled)
		job_refill(j, why);
	else
		job_end_lost(j, why);
}

static void on_shim_silent(struct agent_job *j)
{
	if (j->life == LIFE_LOST)
		job_close(j);
	else if (j->life == LIFE_CLOSING)
		job_close_further(j);
	else if (j->life != LIFE_ENDED && j->life != LIFE_REPORTING)
		shim_lost(j, j->give_back ? "the agent was stopped" : "the shim died, and the VM with it");
}

static void on_shim_gone(struct agent_job *j)
{
	if (j->refill)
		job_start_further(j);
	else
		job_close_further(j);
}

static void on_renewed(struct agent_job *j, const struct renew_answer *answer)
{
	const struct agent_command *commands = answer->commands.items;

	job_shim_extend(j);
	for (size_t i = 0; i < answer->commands.count; i++)
		(void)jobs_command(j->agent, &commands[i]);
	job_fence_checked(j, answer->secret_env);
}

static const struct job_events events = {
	.renewed = on_renewed,
	.lost = job_lost,
	.reported = job_close,
	.shim_says = on_shim_says,
	.shim_silent = on_shim_silent,
	.shim_gone = on_shim_gone,
};

/* --- the beginning --- */

void job_begin(struct agent *a, struct arena *arena, const struct lease_answer *answer)
{
	const struct job_assignment *o = &answer->job;
	struct agent_job *j = job_new(a, o->job_id, o->attempt, LIFE_LEASED, &events);
	int64_t now = clock_monotonic_ns();

	j->arena = arena;
	j->order = o;
	if (o->log_token != NULL)
		j->log_token = secret_new(o->log_token, strlen(o->log_token));
	if (o->job_token != NULL)
		j->job_token = secret_new(o->job_token, strlen(o->job_token));
	if (o->services_token != NULL)
		j->services_token = secret_new(o->services_token, strlen(o->services_token));
	/* Provisional until the first renewal, whose answer counts from when that is sent. */
	j->lease = (struct lease){.fence = answer->fence_token,
				  .ttl_ns = answer->lease_ttl_seconds * NS_PER_S,
				  .deadline_ns = now + answer->lease_ttl_seconds * NS_PER_S};
	j->times.leased_ns = now;
	job_take_slot(j, o->vcpus, o->memory_mb);
	log_info("job leased", F("job", j->job_id), F("attempt", j->attempt), F("fence", j->lease.fence),
		 F("image", o->image), F("vcpus", o->vcpus), F("memory_mb", o->memory_mb));
	job_leased(j);
}

void job_resume(struct agent *a, int64_t job_id, int64_t attempt, const struct state_job *row)
{
	struct agent_job *j = job_new(a, job_id, attempt, LIFE_ADOPTED, &events);

	if (row != NULL) {
		j->lease.fence = row->fence;
		j->result = row->result;
		j->result.message = row->result.message != NULL ? xstrdup(row->result.message) : NULL;
		job_take_slot(j, row->vcpus, row->memory_mb);
	}
	job_seek_shim(j);
}

/* --- all of them --- */

static void job_cancel(struct agent_job *j)
{
	log_info("job is to be cancelled", F("job", j->job_id));
	j->cancelled = true;
	/* Before its shim has orders, the next step of the beginning ends it. */
	if (j->link != NULL && (j->life != LIFE_LEASED || j->from_pool))
		job_shim_cancel(j);
}

static bool open_session(struct agent_job *j, const struct agent_command *c)
{
	if (j->life != LIFE_RUNNING)
		return false; /* its client hears that nobody came */
	job_shim_session(j, c);
	return true;
}

bool jobs_command(struct agent *a, const struct agent_command *c)
{
	for (struct agent_job *j = a->jobs; j != NULL; j = j->next) {
		if (j->job_id != c->job_id || j->lease.fence != c->fence_token)
			continue;
		if (strcmp(c->type, "session") == 0)
			return open_session(j, c);
		if (strcmp(c->type, "cancel") != 0)
			continue;
		if (j->cancelled || j->life >= LIFE_ENDED)
			return false;
		job_cancel(j);
		return true;
	}
	return false;
}

static void give_back(struct agent_job *j)
{
	j->give_back = true;
	if (j->link != NULL && j->life < LIFE_ENDED) {
		job_shim_send(j, SHIM_DESTROY);
		job_shim_expect_end(j);
	}
}

void jobs_give_back(struct agent *a)
{
	for (struct agent_job *j = a->jobs; j != NULL; j = j->next)
		give_back(j);
}

void jobs_forget(struct agent *a)
{
	for (struct agent_job *j = a->jobs, *next = NULL; j != NULL; j = next) {
		next = j->next;
		vm_shim_fini(&j->prepared);
		job_free(j);
	}
}
