#include "control/agent_json.h"

#include "model/labels.h"

static struct js *labels_of(const struct agent *agent, struct arena *arena)
{
	struct js *list = js_new_array();
	struct label_set set = {0};

	if (agent->labels != NULL && label_set_from_key(str_c(agent->labels), arena, &set, NULL) == 0)
		for (size_t i = 0; i < set.count; i++)
			js_push(list, js_new_text(set.items[i]));
	return list;
}

static struct js *text_or_null(const char *text)
{
	return text != NULL ? js_new_text(text) : js_new_null();
}

/* What somebody wants of it goes before what it does. */
static const char *state_of(const struct agent *agent)
{
	if (agent->draining_at != 0)
		return "draining";
	return agent->here ? "online" : "offline";
}

struct js *agent_record(const struct agent *agent, struct arena *arena)
{
	struct js *o = js_new_object();

	js_set(o, "agent_id", js_new_text(agent->agent_id));
	js_set(o, "token_version", js_new_int(agent->token_version));
	js_set_time(o, "rotated_at", agent->rotated_at);
	js_set(o, "ttl_seconds", js_new_int(agent->ttl_s));
	js_set_time(o, "last_seen_at", agent->last_seen_at);
	js_set(o, "agent_version", text_or_null(agent->version));
	js_set(o, "labels", labels_of(agent, arena));
	js_set(o, "vcpus_free", js_new_int(agent->vcpus));
	js_set(o, "memory_mb_free", js_new_int(agent->memory_mb));
	js_set(o, "state", js_new_text(state_of(agent)));
	js_set(o, "here", js_new_bool(agent->here));
	js_set(o, "jobs", js_new_int(agent->jobs));
	js_set_time(o, "draining_at", agent->draining_at);
	js_set(o, "drain_reason", text_or_null(agent->drain_reason));
	return o;
}
