/*
 * Reading jobs. For admins, and for programs of the Python Nimbus, which read with an agent token of the shared secret.
 * An agent that has a token of its own sees its own jobs, and a user those of the organisation.
 */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "control/db/admission.h"
#include "control/db/agents_db.h"
#include "control/db/job_retry.h"
#include "control/db/jobs_db.h"
#include "control/handlers.h"
#include "control/job_json.h"
#include "control/why.h"

enum { RECENT_DEFAULT = 50, RECENT_MAX = 200, AGENTS_MAX = 1000 };
/* How far back an agent sees its own jobs: there is no index of them. */
#define OWN_JOBS_NS (86400 * NS_PER_S)

static const char *lower(const char *text, struct arena *arena)
{
	char *copy = text != NULL ? arena_strdup(arena, text) : NULL;

	for (char *p = copy; p != NULL && *p != '\0'; p++)
		*p = (char)tolower((unsigned char)*p);
	return copy;
}

static int read_filter(const struct http_request *req, struct arena *arena, struct jobs_filter *ret, struct err *err)
{
	struct jobs_filter f = {
		.state = http_query(req, "status"),
		.label = lower(http_query(req, "label"), arena),
		.meta_key = http_query(req, "meta_key"),
		.meta_value = http_query(req, "meta_value"),
		.limit = RECENT_DEFAULT,
	};
	enum job_state state;
	int r = http_query_i64(req, "limit", INT64_MIN, INT64_MAX, &f.limit, err);

	if (r == 0)
		r = http_query_i64(req, "org_id", 1, INT64_MAX, &f.org_id, err);
	if (r == 0 && f.state != NULL)
		r = job_state_parse(str_c(f.state), &state, err);
	if (r < 0)
		return r;
	f.limit = f.limit < 1 ? 1 : f.limit > RECENT_MAX ? RECENT_MAX : f.limit;
	*ret = f;
	return 0;
}

static int keep_to_own(const struct http_request *req, struct jobs_filter *filter, struct err *err)
{
	int64_t own = 0;
	int r = readable_org(req, &own, err);

	filter->agent_id = own_agent(req);
	if (filter->agent_id != NULL)
		filter->within_ns = OWN_JOBS_NS;
	if (r < 0 || own == 0)
		return r;
	if (filter->org_id != 0 && filter->org_id != own)
		return err_set(err, ERR_FORBIDDEN, "org_id: the token is for organisation %" PRId64 ", not %" PRId64,
			       own, filter->org_id);
	filter->org_id = own;
	return 0;
}

int jobs_recent(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autoptr(js) list = js_new_array();
	struct jobs_filter filter;
	struct job *jobs = NULL;
	size_t count = 0;
	int r = require_valid(app, req, err);

	if (r < 0)
		return r;
	r = read_filter(req, http_arena(req), &filter, err);
	if (r == 0)
		r = keep_to_own(req, &filter, err);
	if (r == 0)
		r = jobs_db_recent(&app->db, &filter, http_arena(req), &jobs, &count, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++)
		js_push(list, job_record(&jobs[i]));
	return http_reply_js(req, 200, TAKE(list));
}

static int seen_agents(struct app *app, struct arena *arena, struct why_facts *facts, struct err *err)
{
	struct agent *agents = NULL;
	size_t count = 0;
	int r = agents_db_seen_lately(&app->db, AGENTS_MAX, arena, &agents, &count, err);

	if (r < 0)
		return r;
	facts->agents = agents;
	facts->agent_count = count;
	return 0;
}

static int rate_forecast(struct app *app, const struct job *job, struct why_facts *facts, struct err *err)
{
	struct admission_forecast forecast = {0};
	int r = admission_foresee(&app->db, job, &forecast, err);

	facts->rate = app->db.org_jobs;
	facts->ahead = forecast.ahead;
	facts->room_at = forecast.room_at;
	return r < 0 ? r : 0;
}

/* *ret_why stays NULL where nothing is to be said. */
static int explain(struct app *app, const struct job *job, struct arena *arena, struct why_facts *facts,
		   const char **ret_why, struct err *err)
{
	int r = 0;

	if (job->state == JOB_QUEUED)
		r = seen_agents(app, arena, facts, err);
	if (job->state == JOB_PARKED)
		r = rate_forecast(app, job, facts, err);
	if (r == 0)
		*ret_why = why_waiting(job, facts, arena);
	return r;
}

static bool may_see(const struct claims *c, const struct job *job)
{
	if (c->audience == TOKEN_USER && !c->shared_secret)
		return claims_allow(c, SCOPE_PULL, job->org_id, NULL);
	return reads_all_jobs(c) || (job->agent_id != NULL && strcmp(job->agent_id, c->subject) == 0);
}

/* The job that the path names, as far as the caller may see it. */
static int find_job(struct app *app, struct http_request *req, struct job *ret, struct err *err)
{
	int64_t id = 0;
	int r = require_valid(app, req, err);

	if (r == 0)
		r = path_id(req, &id, err);
	if (r == 0)
		r = jobs_db_get(&app->db, id, http_arena(req), ret, err);
	if (r == JOBS_DB_MISSING || (r == 0 && !may_see(caller(req), ret)))
		return err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, id);
	return r;
}

static struct js *text_or_null(const char *text)
{
	return text != NULL ? js_new_text(text) : js_new_null();
}

static struct js *id_or_null(int64_t id)
{
	return id != 0 ? js_new_int(id) : js_new_null();
}

int job_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct why_facts facts = {0};
	struct job job = {0};
	const char *why = NULL;
	struct job_links links = {0};
	struct js *record;
	int r = find_job(app, req, &job, err);

	if (r == 0)
		r = explain(app, &job, http_arena(req), &facts, &why, err);
	if (r == 0)
		r = job_links_read(&app->db, job.id, &links, err);
	if (r < 0)
		return r;
	record = job_record(&job);
	js_set(record, "why", text_or_null(why));
	js_set(record, "retry_of", id_or_null(links.retry_of));
	js_set(record, "retried_as", id_or_null(links.retried_as));
	return http_reply_js(req, 200, record);
}

int job_why(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct why_facts facts = {0};
	struct job job = {0};
	const char *why = NULL;
	struct js *o;
	int r = find_job(app, req, &job, err);

	if (r == 0)
		r = explain(app, &job, http_arena(req), &facts, &why, err);
	if (r < 0)
		return r;
	o = js_new_object();
	js_set(o, "job_id", js_new_int(job.id));
	js_set(o, "state", js_new_text(job_state_text(job.state)));
	js_set(o, "reason", text_or_null(job.reason));
	js_set(o, "why", text_or_null(why));
	js_set_time(o, "room_at", facts.room_at);
	js_set(o, "jobs_ahead", facts.room_at > 0 ? js_new_int(facts.ahead) : js_new_null());
	return http_reply_js(req, 200, o);
}

static struct js *history_row(const struct job_history *h)
{
	struct js *o = js_new_object();

	js_set_time(o, "at", h->at);
	js_set(o, "from", h->from != NULL ? js_new_text(h->from) : js_new_null());
	js_set(o, "to", js_new_text(h->to));
	js_set(o, "attempt", js_new_int(h->attempt));
	js_set(o, "fence_token", js_new_int(h->fence));
	js_set(o, "agent_id", h->agent_id != NULL ? js_new_text(h->agent_id) : js_new_null());
	js_set(o, "reason", h->reason != NULL ? js_new_text(h->reason) : js_new_null());
	return o;
}

int job_history(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autoptr(js) list = js_new_array();
	struct job_history *rows = NULL;
	size_t count = 0;
	struct job job = {0};
	int r = find_job(app, req, &job, err);

	if (r == 0)
		r = jobs_db_history(&app->db, job.id, http_arena(req), &rows, &count, err);
	if (r == JOBS_DB_MISSING)
		return err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, job.id);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++)
		js_push(list, history_row(&rows[i]));
	return http_reply_js(req, 200, TAKE(list));
}
