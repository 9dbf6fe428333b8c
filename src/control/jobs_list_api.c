/*
 * GET /api/jobs: jobs by filters, the newest first, in pages. For who may read jobs, as far as he may.
 */
#include <ctype.h>
#include <inttypes.h>

#include "base/clock.h"
#include "control/db/jobs_list.h"
#include "control/handlers.h"
#include "control/job_json.h"

enum { LIST_DEFAULT = 50 };

/* "failed,dead" */
static int read_states(const char *text, unsigned *ret, struct err *err)
{
	struct str rest = str_c(text);

	while (rest.data != NULL) {
		enum job_state state = JOB_PARKED;
		int r = job_state_parse(str_trim(str_cut(&rest, ',')), &state, err);

		if (r < 0)
			return err_wrap(err, "state");
		*ret |= 1U << state;
	}
	return 0;
}

static int read_time(const struct http_request *req, const char *name, int64_t *ret, struct err *err)
{
	const char *text = http_query(req, name);

	if (text == NULL || clock_parse(str_c(text), ret, NULL) == 0)
		return 0;
	return err_set(err, ERR_INVALID_FIELD, "%s: '%.40s' is not a time like 2026-11-21T12:40:00Z", name, text);
}

static const char *lower(const char *text, struct arena *arena)
{
	char *copy = text != NULL ? arena_strdup(arena, text) : NULL;

	for (char *p = copy; p != NULL && *p != '\0'; p++)
		*p = (char)tolower((unsigned char)*p);
	return copy;
}

static int read_query(const struct http_request *req, struct arena *arena, struct jobs_query *q, struct err *err)
{
	const char *states = http_query(req, "state");

	q->limit = LIST_DEFAULT;
	q->agent_id = http_query(req, "agent");
	q->label = lower(http_query(req, "label"), arena);
	q->repo = http_query(req, "repo");
	q->name = http_query(req, "name");
	int r = states != NULL ? read_states(states, &q->states, err) : 0;
	if (r == 0)
		r = read_time(req, "since", &q->since_at, err);
	if (r == 0)
		r = read_time(req, "until", &q->until_at, err);
	if (r == 0)
		r = http_query_i64(req, "cursor", 1, INT64_MAX, &q->before_id, err);
	if (r == 0)
		r = http_query_i64(req, "org_id", 1, INT64_MAX, &q->org_id, err);
	return r == 0 ? http_query_i64(req, "limit", 1, JOBS_LIST_MAX, &q->limit, err) : r;
}

static int keep_to_own(const struct http_request *req, struct jobs_query *q, struct err *err)
{
	const char *agent = own_agent(req);
	int64_t own = 0;
	int r = readable_org(req, &own, err);

	if (r < 0)
		return r;
	if (own != 0 && q->org_id != 0 && q->org_id != own)
		return err_set(err, ERR_FORBIDDEN, "org_id: the token is for organisation %" PRId64, own);
	if (own != 0)
		q->org_id = own;
	if (agent != NULL)
		q->agent_id = agent;
	return 0;
}

int jobs_list(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct jobs_query query = {0};
	struct jobs_page page = {0};
	int r = require_valid(app, req, err);

	if (r == 0)
		r = read_query(req, http_arena(req), &query, err);
	if (r == 0)
		r = keep_to_own(req, &query, err);
	if (r == 0)
		r = jobs_db_list(&app->db, &query, http_arena(req), &page, err);
	if (r < 0)
		return r;
	struct js *list = js_new_array();
	for (size_t i = 0; i < page.count; i++)
		js_push(list, job_record(&page.jobs[i]));
	struct js *o = js_new_object();
	js_set(o, "jobs", list);
	js_set(o, "next_cursor", page.next_id != 0 ? js_new_int(page.next_id) : js_new_null());
	return http_reply_js(req, 200, o);
}
