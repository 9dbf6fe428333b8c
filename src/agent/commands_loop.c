#include "agent/commands_loop.h"

#include "agent/control_client.h"
#include "agent/job/job.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/limits.h"
#include "net/http_client.h"
#include "net/loop.h"

static const int64_t call_timeout_ns = (LEASE_WAIT_S_MAX + 10) * NS_PER_S;
/* What is being done is said again as long as it is not done: asked for a few times a second, not in a row. */
static const int64_t repeated_wait_ns = 250 * NS_PER_MS;
/* A cancel is to arrive within a second also after a hiccup. */
static const int64_t retry_base_ns = 200 * NS_PER_MS;
static const int64_t retry_max_ns = 5 * NS_PER_S;

struct commands_loop {
	struct agent *agent;
	struct control_call *call;
	struct loop_source *timer;
	unsigned failures;
};

static void ask_later(struct commands_loop *l, int64_t wait_ns)
{
	loop_timer_set(l->timer, clock_monotonic_ns() + wait_ns);
}

static void on_failed(struct commands_loop *l, const struct err *err, int64_t retry_after_ns)
{
	int64_t wait = http_backoff(l->failures++, retry_base_ns, retry_max_ns);

	/* The lease loop tells people of outages. */
	log_debug("no answer about commands", F("error", err));
	ask_later(l, wait > retry_after_ns ? wait : retry_after_ns);
}

static void on_answer(void *ctx, const struct control_answer *answer)
{
	struct commands_loop *l = ctx;
	struct commands_answer commands;
	struct err err = {0};
	bool news = false;

	l->call = NULL;
	if (answer->err != NULL) {
		on_failed(l, answer->err, answer->retry_after_ns);
		return;
	}
	autoptr(arena) arena = arena_new();
	if (js_decode(answer->body, &commands_answer_shape, arena, &commands, &err) < 0) {
		on_failed(l, &err, 0);
		return;
	}
	l->failures = 0;
	const struct agent_command *items = commands.commands.items;
	for (size_t i = 0; i < commands.commands.count; i++)
		news = jobs_command(l->agent, &items[i]) || news;
	bool waited = clock_monotonic_ns() - answer->sent_ns >= NS_PER_S;
	ask_later(l, news || waited ? 0 : repeated_wait_ns);
}

static void ask(void *ctx)
{
	struct commands_loop *l = ctx;
	struct commands_request request = {.agent_id = l->agent->id, .wait_seconds = LEASE_WAIT_S_MAX};

	l->call = control_post(l->agent->control, "/api/agents/commands", js_encode(&commands_request_shape, &request),
			       call_timeout_ns, on_answer, l);
}

int commands_loop_new(struct agent *a, struct commands_loop **ret, struct err *err)
{
	autoptr(commands_loop) l = xcalloc(1, sizeof(*l));

	l->agent = a;
	int rc = loop_add_timer(a->loop, 0, LOOP_NORMAL, ask, l, &l->timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

void commands_loop_free(struct commands_loop *l)
{
	if (l == NULL)
		return;
	control_cancel(l->call);
	loop_source_free(l->timer);
	free(l);
}
