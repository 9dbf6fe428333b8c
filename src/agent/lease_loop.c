#include "agent/lease_loop.h"

#include "agent/control_client.h"
#include "agent/job/job.h"
#include "agent/metrics.h"
#include "agent/pool.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/limits.h"
#include "net/http_client.h"
#include "net/loop.h"

enum { WAIT_S = LEASE_WAIT_S_MAX };

static const int64_t call_timeout_ns = (WAIT_S + 10) * NS_PER_S;

static const int64_t disk_wait_ns = 5 * NS_PER_S;

struct lease_loop {
	struct agent *agent;
	struct control_call *call;
	int64_t vcpus_offered; /* by the call */
	int64_t memory_mb_offered;
	struct loop_source *timer; /* when to ask again */
	bool waits;		   /* the timer is armed */
	unsigned failures;
	bool draining;	/* as the control plane last said */
	bool disk_full; /* said once, until there is room again */
	bool stopped;
};

static void ask(struct lease_loop *l);

static void on_timer(void *ctx)
{
	struct lease_loop *l = ctx;

	l->waits = false;
	lease_loop_kick(l);
}

static void ask_later(struct lease_loop *l, int64_t wait_ns)
{
	l->waits = true;
	loop_timer_set(l->timer, clock_monotonic_ns() + wait_ns);
}

static void on_failed(struct lease_loop *l, const struct err *err, int64_t retry_after_ns)
{
	const struct agent_settings *s = l->agent->settings;
	int64_t wait = http_backoff(l->failures++, s->lease_retry_base, s->lease_retry_max);

	metrics_inc(l->agent->metrics, M_LEASE_ERRORS);
	/* One hiccup is nobody's business; an outage is said once. */
	if (l->failures == (unsigned)s->lease_retries + 1 || (l->failures == 1 && s->lease_retries == 0))
		log_warn("the control plane gives no answer about jobs: asking again until it does", F("error", err),
			 F("tries", l->failures));
	ask_later(l, wait > retry_after_ns ? wait : retry_after_ns);
}

static void hear_draining(struct lease_loop *l, bool draining)
{
	if (draining && !l->draining)
		log_info("this agent drains: no new jobs until it is resumed");
	else if (!draining && l->draining)
		log_info("this agent is given jobs again");
	l->draining = draining;
	pool_drain(l->agent->pool, draining);
}

static void on_answer(void *ctx, const struct control_answer *answer)
{
	struct lease_loop *l = ctx;
	struct arena *arena = arena_new();
	struct lease_answer *lease = arena_alloc(arena, sizeof(*lease));
	struct err err = {0};

	l->call = NULL;
	if (answer->err != NULL)
		err = *answer->err;
	else
		(void)!lease_answer_decode(answer->body, arena, lease, &err);
	if (err.code != 0) {
		arena_free(arena);
		on_failed(l, &err, answer->retry_after_ns);
		return;
	}
	if (l->failures > (unsigned)l->agent->settings->lease_retries)
		log_info("the control plane answers again");
	l->failures = 0;
	hear_draining(l, lease->draining);
	if (lease->has_job) {
		job_begin(l->agent, arena, lease);
		lease_loop_kick(l);
		return;
	}
	int64_t backoff = lease->backoff_seconds * NS_PER_S;
	arena_free(arena);
	metrics_inc(l->agent->metrics, M_EMPTY_LEASES);
	/* One that has really waited may be asked again at once. */
	bool waited = clock_monotonic_ns() - answer->sent_ns >= (WAIT_S - 1) * NS_PER_S;
	ask_later(l, waited ? 0 : backoff);
}

static struct js *hardware(const struct agent *a)
{
	struct js *h = js_new_object();

	js_set(h, "cpu_cores", js_new_int(a->slots.vcpus));
	js_set(h, "mem_total_mb", js_new_int(a->slots.memory_mb));
	return h;
}

static void ask(struct lease_loop *l)
{
	const struct agent *a = l->agent;
	const struct config_list *labels = &a->settings->labels;
	static const char *capabilities[] = {"firecracker"}; /* the wire's word for "runs jobs in microVMs" */
	autoptr(arena) arena = arena_new();
	autoptr(js) h = hardware(a);
	const char **items = arena_calloc(arena, labels->count, sizeof(*items));

	for (size_t i = 0; i < labels->count; i++)
		items[i] = labels->items[i];
	l->vcpus_offered = slots_vcpus_free(&a->slots);
	l->memory_mb_offered = slots_memory_mb_free(&a->slots);
	struct lease_request request = {
		.agent_id = a->id,
		.agent_version = NIMBUS_VERSION,
		.capabilities = {capabilities, ARRAY_LEN(capabilities)},
		.hardware = h,
		.labels = {items, labels->count},
		.wait_seconds = WAIT_S,
		.vcpus_free = l->vcpus_offered,
		.memory_mb_free = l->memory_mb_offered,
		.draining = l->draining,
	};
	metrics_inc(a->metrics, M_LEASE_REQUESTS);
	l->call = control_post(a->control, "/api/jobs/lease", lease_request_encode(&request), call_timeout_ns,
			       on_answer, l);
}

/* A job takes disk for its scratch and its log. Better asked before it is leased than found out by it. */
static bool has_disk(struct lease_loop *l)
{
	struct err err = {0};
	uint64_t left = 0;

	bool full = disk_free(l->agent->host.vms_fd, &left, &err) == 0 && left < (uint64_t)l->agent->min_free_disk;
	if (full && !l->disk_full)
		log_error("too little disk space is left for jobs: none are taken until there is more",
			  F("bytes_left", left), F("bytes_needed", l->agent->min_free_disk));
	if (!full && l->disk_full)
		log_info("there is disk space for jobs again", F("bytes_left", left));
	l->disk_full = full;
	return !full;
}

void lease_loop_kick(struct lease_loop *l)
{
	const struct slots *s = &l->agent->slots;

	if (l->stopped || l->waits || !slots_any(s))
		return;
	if (!has_disk(l)) {
		control_cancel(TAKE(l->call));
		ask_later(l, disk_wait_ns);
		return;
	}
	if (l->call != NULL) {
		/* A larger offer may get a job that waits for it. A lease that crosses this goes back by itself. */
		if (slots_vcpus_free(s) <= l->vcpus_offered && slots_memory_mb_free(s) <= l->memory_mb_offered)
			return;
		control_cancel(TAKE(l->call));
	}
	ask(l);
}

void lease_loop_stop(struct lease_loop *l)
{
	l->stopped = true;
	control_cancel(TAKE(l->call));
	loop_timer_set(l->timer, LOOP_NEVER);
}

int lease_loop_new(struct agent *a, struct lease_loop **ret, struct err *err)
{
	autoptr(lease_loop) l = xcalloc(1, sizeof(*l));

	l->agent = a;
	int rc = loop_add_timer(a->loop, LOOP_NEVER, LOOP_NORMAL, on_timer, l, &l->timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

void lease_loop_free(struct lease_loop *l)
{
	if (l == NULL)
		return;
	control_cancel(l->call);
	loop_source_free(l->timer);
	free(l);
}
