/*
 * One agent, and whether it is given new jobs: GET /api/agents/{agent}, POST .../drain and .../resume. For admins.
 */
#include <string.h>

#include "base/log.h"
#include "control/agent_json.h"
#include "control/db/jobs_list.h"
#include "control/handlers.h"
#include "control/job_json.h"
#include "control/waits.h"
#include "model/names.h"

enum { REASON_MAX = 200, JOBS_MAX = 200 };

struct drain_request {
	const char *reason;
};

static const struct js_field drain_fields[] = {
	{"reason", JS_FIELD_TEXT, 0, offsetof(struct drain_request, reason), .max = REASON_MAX},
};
static const struct js_shape drain_shape = JS_SHAPE(struct drain_request, drain_fields);

static int path_agent(const struct http_request *req, const char **ret, struct err *err)
{
	*ret = http_path_param(req, "agent");
	return name_check(str_c(*ret), "agent", err);
}

static int no_agent(const char *agent_id, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "Agent not found: no agent called '%s' has asked for work or a token",
		       agent_id);
}

/* With its jobs. */
static int reply_agent(struct app *app, struct http_request *req, const char *agent_id, struct err *err)
{
	struct arena *arena = http_arena(req);
	struct agent agent = {0};
	struct job *jobs = NULL;
	size_t count = 0;
	int r = agents_db_get(&app->db, agent_id, arena, &agent, err);

	if (r == 0)
		r = jobs_db_live(&app->db, agent_id, JOBS_MAX, arena, &jobs, &count, err);
	if (r != 0)
		return r == AGENTS_DB_MISSING ? no_agent(agent_id, err) : r;
	struct js *o = agent_record(&agent, arena);
	struct js *list = js_new_array();
	for (size_t i = 0; i < count; i++)
		js_push(list, job_record(&jobs[i]));
	js_set(o, "running", list);
	return http_reply_js(req, 200, o);
}

int agent_get(void *ctx, struct http_request *req, struct err *err)
{
	const char *agent_id = NULL;
	int r = path_agent(req, &agent_id, err);

	return r < 0 ? r : reply_agent(ctx, req, agent_id, err);
}

/* The call in which it waits for work hears of it, here or at another control plane. */
static void tell_agent(struct app *app, const char *agent_id)
{
	if (!lease_wake_agent(app, agent_id))
		peers_tell_agent(app->peers, agent_id);
}

int agent_drain(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct drain_request q = {0};
	const char *agent_id = NULL;
	int r = path_agent(req, &agent_id, err);

	if (r == 0 && http_body(req).len > 0)
		r = http_body_decode(req, &drain_shape, &q, err);
	if (r == 0)
		r = agents_db_drain(&app->db, agent_id, q.reason, err);
	if (r != 0)
		return r == AGENTS_DB_MISSING ? no_agent(agent_id, err) : r;
	log_info("agent drains", F("agent", agent_id), F("by", (const char *)caller(req)->subject),
		 F("reason", q.reason != NULL ? q.reason : ""));
	tell_agent(app, agent_id);
	return reply_agent(app, req, agent_id, err);
}

int agent_resume(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	const char *agent_id = NULL;
	int r = path_agent(req, &agent_id, err);

	if (r == 0)
		r = agents_db_resume(&app->db, agent_id, err);
	if (r != 0)
		return r == AGENTS_DB_MISSING ? no_agent(agent_id, err) : r;
	log_info("agent is given work again", F("agent", agent_id), F("by", (const char *)caller(req)->subject));
	tell_agent(app, agent_id);
	return reply_agent(app, req, agent_id, err);
}
