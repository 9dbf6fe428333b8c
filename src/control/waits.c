#include "control/waits.h"

#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "control/app.h"

struct wish {
	const struct ready_job *job;
	struct label_set labels;
};

/* What the database asks too, so who is woken can take the job. True is the pick. */
static bool pick(void *ctx, const void *tag)
{
	const struct wish *wish = ctx;
	const struct lease_wait *w = tag;

	if (w->drains || (w->vcpus >= 0 && wish->job->vcpus > w->vcpus) ||
	    (w->memory_mb >= 0 && wish->job->memory_mb > w->memory_mb) || !label_set_covers(&w->labels, &wish->labels))
		return false;
	*w->woken_for = (struct lease_wish){wish->job->id, wish->job->more};
	return true;
}

bool lease_wake(struct app *app, const struct ready_job *job)
{
	autoptr(arena) a = arena_new();
	struct wish wish = {.job = job};
	struct err err = {0};

	if (label_set_from_key(str_c(job->labels), a, &wish.labels, &err) == 0)
		return http_wait_wake(app->lease_waits, 1, pick, &wish) > 0;
	log_error("a job waits for the next call: its labels cannot be read", F("job", job->id), F("error", &err));
	return false;
}

static bool is_of_agent(void *ctx, const void *tag)
{
	const struct lease_wait *w = tag;

	return strcmp(w->agent_id, ctx) == 0;
}

bool lease_wake_agent(struct app *app, const char *agent_id)
{
	return http_wait_wake(app->lease_waits, SIZE_MAX, is_of_agent, (void *)(uintptr_t)agent_id) > 0;
}

static bool is_for_agent(void *agent_id, const void *tag)
{
	return str_eq(str_c(agent_id), str_c(tag));
}

bool commands_wake(struct app *app, const char *agent_id)
{
	return http_wait_wake(app->command_waits, SIZE_MAX, is_for_agent, (void *)(uintptr_t)agent_id) > 0;
}
