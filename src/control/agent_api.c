/*
 * What an agent says of a job it holds, and the commands it waits for. Every write carries the fence of its lease.
 */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "control/db/leases_db.h"
#include "control/handlers.h"
#include "control/waits.h"
#include "proto/agent_api.h"

static struct agent_command cancel_command(int64_t job_id, int64_t fence)
{
	return (struct agent_command){.type = "cancel", .job_id = job_id, .fence_token = fence};
}

/* --- POST /api/jobs/lease/renew --- */

/* The only place where a secret environment is opened: for the holder of the lease. */
static int open_secrets(const struct app *app, int64_t job_id, struct str sealed, struct js **ret, struct err *err)
{
	autoptr(secret) plain = NULL;
	int r;

	if (sealed.len == 0) {
		*ret = js_new_object();
		return 0;
	}
	r = sealer_open(app->sealer, job_id, sealed, &plain, err);
	return r < 0 ? r : js_parse(secret_reveal(plain) /* to its agent */, ret, err);
}

int renew_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autoptr(js) secrets = NULL;
	autovar(buf) sealed = {0};
	struct renew_request q = {0};
	bool cancel = false;
	int r = http_body_decode(req, &renew_request_shape, &q, err);

	if (r == 0)
		r = require_agent(app, req, q.agent_id, err);
	if (r < 0)
		return r;
	const struct lease_renewal renewal = {
		.job_id = q.job_id,
		.agent_id = q.agent_id,
		.fence = q.fence_token,
		.ttl_ns = app->settings->lease_ttl,
		.secret_env = q.want_secrets ? &sealed : NULL,
	};
	r = leases_db_renew(&app->db, &renewal, &cancel, err);
	if (r == 0 && q.want_secrets)
		r = open_secrets(app, q.job_id, buf_str(&sealed), &secrets, err);
	if (r < 0)
		return r;
	struct agent_command command = cancel_command(q.job_id, q.fence_token);
	const struct renew_answer answer = {
		.renewed = true,
		.lease_ttl_seconds = app->settings->lease_ttl / NS_PER_S,
		.commands = {&command, cancel ? 1 : 0},
		.secret_env = secrets,
	};
	return http_reply_shape(req, 200, &renew_answer_shape, &answer);
}

/* --- POST /api/jobs/status --- */

/* What an agent may say; the other states are the control plane's. */
static const enum job_state reportable[] = {
	JOB_STARTING, JOB_RUNNING, JOB_SUCCEEDED, JOB_FAILED, JOB_CANCELLED, JOB_TIMED_OUT,
};

static int read_state(struct str status, struct job_report *report, struct err *err)
{
	if (str_eq(status, STR("lost"))) {
		report->lost = true;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(reportable); i++) {
		if (str_eq(status, str_c(job_state_text(reportable[i])))) {
			report->state = reportable[i];
			return 0;
		}
	}
	return err_set(err, ERR_INVALID_FIELD, "status: '%.*s' is not one that an agent reports", STR_ARG(status));
}

int status_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	const struct js *body = NULL;
	struct job_report report;
	struct status_report q = {0};
	int r = http_body_js(req, &body, err);

	if (r == 0)
		r = status_report_decode(body, http_arena(req), &q, err);
	if (r == 0)
		r = require_agent(app, req, q.agent_id, err);
	if (r < 0)
		return r;
	report = (struct job_report){
		.job_id = q.job_id,
		.agent_id = q.agent_id,
		.fence = q.fence_token,
		.reason = q.reason,
		.message = q.message,
		.exit_code = q.exit_code,
		.signal = q.signal,
		.last_seq = q.last_seq,
		.metadata = q.metadata,
		.ttl_ns = app->settings->lease_ttl,
	};
	r = read_state(str_c(q.status), &report, err);
	if (r == 0)
		r = leases_db_report(&app->db, &report, err);
	return r < 0 ? r : http_reply_null(req, 202);
}

/* --- POST /api/agents/commands --- */

struct commands_wait {
	const char *agent_id;
	int64_t deadline_ns;
	/* What this answer tells, to be remembered once it is delivered. */
	struct lease_command *told;
	size_t told_count;
	struct session_order *orders;
	size_t order_count;
};

static int read_commands_call(struct app *app, struct http_request *req, struct commands_wait **ret, struct err *err)
{
	struct commands_wait *w = arena_alloc(http_arena(req), sizeof(*w));
	struct commands_request q = {0};
	int r = http_body_decode(req, &commands_request_shape, &q, err);

	if (r == 0)
		r = require_agent(app, req, q.agent_id, err);
	if (r < 0)
		return r;
	w->agent_id = arena_strdup(http_arena(req), q.agent_id);
	w->deadline_ns = clock_monotonic_ns() + q.wait_seconds * NS_PER_S;
	*ret = w;
	return 0;
}

static int add_orders(const struct commands_wait *w, struct agent_command *commands, struct js **parsed,
		      struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < w->order_count && r == 0; i++) {
		const struct session_order *o = &w->orders[i];
		r = js_parse(str_c(o->request), &parsed[i], err);
		commands[i] = (struct agent_command){.type = "session",
						     .job_id = o->job_id,
						     .fence_token = o->fence,
						     .session = o->id,
						     .exec = parsed[i]};
	}
	return r;
}

static int reply_commands(struct http_request *req, const struct commands_wait *w, struct err *err)
{
	size_t count = w->told_count + w->order_count;
	struct agent_command *commands = arena_calloc(http_arena(req), count + 1, sizeof(*commands));
	struct js **parsed = arena_calloc(http_arena(req), w->order_count + 1, sizeof(*parsed));
	const struct commands_answer answer = {.commands = {commands, count}};

	for (size_t i = 0; i < w->told_count; i++)
		commands[i] = cancel_command(w->told[i].job_id, w->told[i].fence);
	int r = add_orders(w, commands + w->told_count, parsed, err);
	if (r == 0)
		r = http_reply_shape(req, 200, &commands_answer_shape, &answer);
	for (size_t i = 0; i < w->order_count; i++)
		js_free(parsed[i]);
	return r;
}

static void remember_told(void *ctx, struct http_request *req, void *arg, bool delivered)
{
	struct app *app = ctx;
	const struct commands_wait *w = arg;

	(void)req;
	for (size_t i = 0; i < w->told_count && delivered; i++)
		told_add(app->told, w->told[i].job_id, w->told[i].fence, clock_monotonic_ns());
	for (size_t i = 0; i < w->order_count && delivered; i++)
		sessions_told(app->sessions, w->orders[i].id);
}

/* Keeps those that the agent did not get a moment ago; gives how many. */
static size_t untold(struct app *app, struct lease_command *list, size_t count)
{
	int64_t now_ns = clock_monotonic_ns();
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		if (!told_lately(app->told, list[i].job_id, list[i].fence, now_ns))
			list[kept++] = list[i];
	return kept;
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

int commands_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct commands_wait *w = http_state(req);
	size_t count = 0;
	size_t fresh;
	int r = w == NULL ? read_commands_call(app, req, &w, err) : 0;

	if (r < 0)
		return r;
	http_set_state(req, w);
	if (http_wait_over(req))
		return reply_commands(req, &(struct commands_wait){0}, err);
	r = leases_db_commands(&app->db, w->agent_id, http_arena(req), &w->told, &count, err);
	if (r < 0)
		return r;
	fresh = untold(app, w->told, count);
	w->told_count = fresh;
	w->order_count = sessions_orders(app->sessions, w->agent_id, http_arena(req), &w->orders);
	if (fresh > 0 || w->order_count > 0) {
		http_on_done(req, remember_told, w);
		return reply_commands(req, w, err);
	}
	/* With one told a moment ago the call ends soon: the agent asks again, and gets it again if it is still due. */
	return http_park(req, app->command_waits,
			 count > 0 ? least(w->deadline_ns, clock_monotonic_ns() + TOLD_NS) : w->deadline_ns,
			 w->agent_id);
}
