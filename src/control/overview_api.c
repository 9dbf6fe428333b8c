/*
 * GET /api/overview: the queue, the agents and the live jobs of one moment, for who looks every second. It is not
 * counted against the admin's rate: it is three reads with a bound.
 */
#include "base/clock.h"
#include "control/agent_json.h"
#include "control/db/jobs_list.h"
#include "control/handlers.h"
#include "control/job_json.h"

enum { OVERVIEW_AGENTS_MAX = 500, OVERVIEW_JOBS_MAX = 200 };

static int add_agents(struct app *app, struct arena *arena, struct js *o, struct err *err)
{
	struct js *list = js_new_array();
	struct agent *agents = NULL;
	size_t count = 0;
	int r = agents_db_list(&app->db, OVERVIEW_AGENTS_MAX, arena, &agents, &count, err);

	for (size_t i = 0; r == 0 && i < count; i++)
		js_push(list, agent_record(&agents[i], arena));
	js_set(o, "agents", list);
	return r;
}

static int add_jobs(struct app *app, struct arena *arena, struct js *o, struct err *err)
{
	struct js *list = js_new_array();
	struct job *jobs = NULL;
	size_t count = 0;
	int r = jobs_db_live(&app->db, NULL, OVERVIEW_JOBS_MAX, arena, &jobs, &count, err);

	for (size_t i = 0; r == 0 && i < count; i++)
		js_push(list, job_record(&jobs[i]));
	js_set(o, "running", list);
	return r;
}

int overview_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct jobs_counts counts = {0};
	autoptr(js) o = js_new_object();
	int r = jobs_db_counts(&app->db, 0, &counts, err);

	if (r == 0)
		r = add_agents(app, http_arena(req), o, err);
	if (r == 0)
		r = add_jobs(app, http_arena(req), o, err);
	if (r < 0)
		return r;
	js_set_time(o, "at", clock_unix_ns());
	js_set(o, "version", js_new_text(NIMBUS_VERSION));
	js_set(o, "queue_length", js_new_int(counts.queue_length));
	js_set_time(o, "oldest_queued_at", counts.oldest_queued_at);
	js_set(o, "jobs_by_status", states_record(&counts));
	return http_reply_js(req, 200, TAKE(o));
}
