#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/control_metrics.h"
#include "control/db/agents_db.h"
#include "control/db/rate_limit.h"
#include "control/handlers.h"
#include "model/limits.h"

enum { WEBHOOK_MAX = 25 << 20, SUBMIT_MAX = 1 << 20, EXEC_MAX = 64 << 10, AGENT_MAX = 64 << 10 };

int refuse_for(struct app *app, struct http_request *req, int64_t wait_ns, const char *what, struct err *err)
{
	int64_t seconds = (wait_ns + NS_PER_S - 1) / NS_PER_S;

	metrics_inc(app->metrics, M_CALL_LIMITS);
	http_retry_after(req, (unsigned)(seconds > 1 ? seconds : 1));
	return err_set(err, ERR_LIMIT, "%s: there is room again in %" PRId64 " s", what, seconds > 1 ? seconds : 1);
}

/* The last of the checks that an admin's call passes. On a worker, since what it counts is durable: that costs a commit
 * for each call that is let through, so at most the rate itself; a call over it costs a read. */
static int pass_admin(struct app *app, struct http_request *req, struct err *err)
{
	const struct gcra limit = {.limit = app->settings->admin_limit, .interval_ns = app->settings->admin_interval};
	const struct claims *c = caller(req);
	struct gcra_verdict verdict = {.allowed = true};
	int r = 0;

	if (limit.limit <= 0 || c->audience != TOKEN_ADMIN)
		return 0;
	r = rate_limit_pass(&app->db, arena_printf(http_arena(req), "admin:%s", c->subject), &limit, &verdict, err);
	/* Who looks for the reason of a full disk must see it. */
	if (r == -ERR_DISK_FULL)
		return 0;
	if (r < 0 || verdict.allowed)
		return r;
	return refuse_for(app, req, verdict.wait_ns, "Admin rate limit exceeded", err);
}

/* NIMBUS_JOB_FILES_MAX is what counts. */
#define FILE_MAX ((size_t)INT64_MAX)

#define ADMIN_CALL(handler)                                                                \
	static int limited_##handler(void *ctx, struct http_request *req, struct err *err) \
	{                                                                                  \
		int r = pass_admin(ctx, req, err);                                         \
                                                                                           \
		return r < 0 ? r : handler(ctx, req, err);                                 \
	}

ADMIN_CALL(job_submit)
ADMIN_CALL(exec_post)
ADMIN_CALL(jobs_recent)
ADMIN_CALL(job_get)
ADMIN_CALL(job_why)
ADMIN_CALL(job_history)
ADMIN_CALL(job_cancel)
ADMIN_CALL(job_retry_post)
ADMIN_CALL(jobs_list)
ADMIN_CALL(agent_token)
ADMIN_CALL(agents_list)
ADMIN_CALL(agents_audit)
ADMIN_CALL(agent_get)
ADMIN_CALL(agent_drain)
ADMIN_CALL(agent_resume)
ADMIN_CALL(keys_list)
ADMIN_CALL(status_get)

const struct http_route control_routes[] = {
	{"POST", "/webhooks/github", HTTP_WORKER, ACCESS_ALL, WEBHOOK_MAX, webhook_post},

	{"POST", "/api/jobs", HTTP_WORKER, ACCESS_ADMIN, SUBMIT_MAX, limited_job_submit},
	{"GET", "/api/jobs", HTTP_WORKER, ACCESS_READ, .handle = limited_jobs_list},
	{"GET", "/api/jobs/recent", HTTP_WORKER, ACCESS_READ, .handle = limited_jobs_recent},
	{"GET", "/api/jobs/{id}", HTTP_WORKER, ACCESS_READ, .handle = limited_job_get},
	{"GET", "/api/jobs/{id}/why", HTTP_WORKER, ACCESS_READ, .handle = limited_job_why},
	{"GET", "/api/jobs/{id}/history", HTTP_WORKER, ACCESS_READ, .handle = limited_job_history},
	{"POST", "/api/jobs/{id}/cancel", HTTP_WORKER, ACCESS_ADMIN, AGENT_MAX, limited_job_cancel},
	{"POST", "/api/jobs/{id}/retry", HTTP_WORKER, ACCESS_ADMIN, SUBMIT_MAX, limited_job_retry_post},

	/* Parts of what a submit began, which was counted: not counted again. */
	{"PUT", "/api/jobs/{id}/workspace", HTTP_SINK, ACCESS_ADMIN, FILE_MAX, .sink = &input_sink},
	{"PUT", "/api/jobs/{id}/inputs/{n}", HTTP_SINK, ACCESS_ADMIN, FILE_MAX, .sink = &input_sink},
	{"GET", "/api/jobs/{id}/inputs/{n}", HTTP_WORKER, ACCESS_JOB, .handle = input_get},
	{"PUT", "/api/jobs/{id}/outputs/{n}", HTTP_SINK, ACCESS_JOB, FILE_MAX, .sink = &output_sink},
	{"GET", "/api/jobs/{id}/outputs/{n}", HTTP_WORKER, ACCESS_ADMIN, .handle = output_get},
	{"GET", "/api/jobs/{id}/session", HTTP_WORKER, ACCESS_ADMIN, .handle = session_get},
	{"GET", "/api/jobs/{id}/session/shim", HTTP_WORKER, ACCESS_JOB, .handle = session_shim},
	{"POST", "/api/jobs/{id}/exec", HTTP_WORKER, ACCESS_ADMIN, EXEC_MAX, limited_exec_post},
	{"GET", "/api/jobs/{id}/exec/{session}", HTTP_WORKER, ACCESS_ADMIN, .handle = exec_get},
	{"GET", "/api/jobs/{id}/exec/{session}/shim", HTTP_WORKER, ACCESS_JOB, .handle = exec_shim},

	{"POST", "/api/jobs/lease", HTTP_WORKER, ACCESS_AGENT, AGENT_MAX, lease_post},
	{"POST", "/api/jobs/lease/renew", HTTP_WORKER, ACCESS_AGENT, AGENT_MAX, renew_post},
	{"POST", "/api/jobs/status", HTTP_WORKER, ACCESS_AGENT, AGENT_MAX, status_post},
	{"POST", "/api/agents/commands", HTTP_WORKER, ACCESS_AGENT, AGENT_MAX, commands_post},

	{"POST", "/api/agents/token", HTTP_WORKER, ACCESS_ADMIN, AGENT_MAX, limited_agent_token},
	{"GET", "/api/agents", HTTP_WORKER, ACCESS_ADMIN, .handle = limited_agents_list},
	{"GET", "/api/agents/audit", HTTP_WORKER, ACCESS_ADMIN, .handle = limited_agents_audit},
	{"GET", "/api/agents/{agent}", HTTP_WORKER, ACCESS_ADMIN, .handle = limited_agent_get},
	{"POST", "/api/agents/{agent}/drain", HTTP_WORKER, ACCESS_ADMIN, AGENT_MAX, limited_agent_drain},
	{"POST", "/api/agents/{agent}/resume", HTTP_WORKER, ACCESS_ADMIN, AGENT_MAX, limited_agent_resume},
	{"GET", "/api/keys", HTTP_WORKER, ACCESS_ADMIN, .handle = limited_keys_list},

	{"GET", "/api/status", HTTP_WORKER, ACCESS_READ, .handle = limited_status_get},
	{"GET", "/api/overview", HTTP_WORKER, ACCESS_ADMIN, .handle = overview_get},
	{"GET", "/healthz", HTTP_INLINE, ACCESS_ALL, .handle = health, .probe = true},
	{"GET", "/readyz", HTTP_WORKER, ACCESS_ALL, .handle = ready, .probe = true},
	{"GET", "/metrics", HTTP_WORKER, ACCESS_METRICS, .handle = metrics_show, .probe = true},
	{"GET", "/.well-known/jwks.json", HTTP_INLINE, ACCESS_ALL, .handle = jwks_get},
};
const size_t control_route_count = ARRAY_LEN(control_routes);

static int authorize_metrics(const struct app *app, const struct http_request *req, struct err *err)
{
	const struct secret *token = app->settings->metrics_token;

	if (token == NULL)
		return http_remote_is_loopback(req)
			       ? 0
			       : err_set(err, ERR_FORBIDDEN,
					 "metrics are for this machine only: NIMBUS_METRICS_TOKEN is not set");
	if (!secret_equal(token, http_bearer(req) /* compared only */))
		return err_set(err, ERR_UNAUTH, "metrics: the metrics token is missing or wrong");
	return 0;
}

static bool subject_allowed(const struct config_list *allowed, const char *subject)
{
	for (size_t i = 0; i < allowed->count; i++)
		if (strcmp(allowed->items[i], subject) == 0)
			return true;
	return allowed->count == 0;
}

/* In the order of the Python Nimbus. */
static int check_admin(const struct app *app, const struct http_request *req, const struct claims *claims,
		       struct err *err)
{
	const struct cidr_list *allowed = &app->admin_addresses;
	const struct address *from = http_remote(req);

	/* Such as the one that seals logs, which the logging pipeline gets to see. */
	if (claims->scopes[0] != '\0' || claims->org_id != 0)
		return err_set(err, ERR_FORBIDDEN,
			       "Admin token is limited to a scope or an organisation: not for here");
	if (!subject_allowed(&app->settings->admin_subjects, claims->subject))
		return err_set(err, ERR_FORBIDDEN, "Admin subject not allowed");
	if (http_has_stray_forwarding(req))
		return err_set(err, ERR_INVALID,
			       "Forwarded headers not allowed: no proxy is named in NIMBUS_TRUSTED_PROXY_CIDRS");
	if (app->settings->require_https && !http_is_confidential(req))
		return err_set(err, ERR_INVALID, "HTTPS required");
	if (app->settings->admin_addresses.count > 0 &&
	    !(from != NULL ? cidr_list_has(allowed, from) : allowed->unix_peers))
		return err_set(err, ERR_FORBIDDEN, "Admin source not allowed");
	return 0;
}

int control_authorize(void *ctx, struct http_request *req, const struct http_route *route, struct err *err)
{
	struct app *app = ctx;
	struct claims *claims;
	struct str token;
	int r;

	if (route->access == ACCESS_ALL)
		return 0;
	if (route->access == ACCESS_METRICS)
		return authorize_metrics(app, req, err);
	token = http_bearer(req); /* to the verifier */
	if (token.data == NULL)
		return err_set(err, ERR_UNAUTH, "Missing token");
	claims = arena_alloc(http_arena(req), sizeof(*claims));
	r = verifier_verify(app->verifier, token, route->access, clock_unix_ns(), claims, err);
	if (r < 0)
		return r;
	r = claims->audience == TOKEN_ADMIN ? check_admin(app, req, claims, err) : 0;
	if (r < 0)
		return r;
	http_set_claims(req, claims);
	return 0;
}

void control_observe(void *ctx, const struct http_route *route, int status, int64_t duration_ns)
{
	struct app *app = ctx;

	(void)status;
	metrics_inc(app->metrics, M_REQUESTS);
	/* How long an agent waited for work says nothing about us. */
	if (route != NULL && route->handle != lease_post && route->handle != commands_post)
		metrics_observe_ns(app->metrics, M_REQUEST_LATENCY, duration_ns);
}

const struct claims *caller(const struct http_request *req)
{
	return http_claims(req);
}

int require_agent(struct app *app, const struct http_request *req, const char *agent_id, struct err *err)
{
	const struct claims *c = caller(req);
	int64_t version = 0;
	int r;

	if (strcmp(c->subject, agent_id) != 0)
		return err_set(err, ERR_FORBIDDEN, "Agent mismatch: this token is not for agent '%.128s'", agent_id);
	r = agents_db_token_version(&app->db, agent_id, &version, err);
	if (r == 0 && c->version != version)
		return err_set(err, ERR_FORBIDDEN, "Token revoked: agent '%s' has a newer one", agent_id);
	return r;
}

int require_valid(struct app *app, const struct http_request *req, struct err *err)
{
	const struct claims *c = caller(req);

	return c->audience == TOKEN_AGENT ? require_agent(app, req, c->subject, err) : 0;
}

bool reads_all_jobs(const struct claims *c)
{
	return c->audience == TOKEN_ADMIN || c->shared_secret;
}

const char *own_agent(const struct http_request *req)
{
	const struct claims *c = caller(req);

	return c->audience == TOKEN_AGENT && !reads_all_jobs(c) ? c->subject : NULL;
}

int readable_org(const struct http_request *req, int64_t *ret, struct err *err)
{
	const struct claims *c = caller(req);

	*ret = 0;
	if (c->audience != TOKEN_USER || c->shared_secret)
		return 0;
	if (!claims_allow(c, SCOPE_PULL, c->org_id, NULL))
		return err_set(err, ERR_FORBIDDEN, "Token lacks pull scope: it reads no organisation's jobs");
	*ret = c->org_id;
	return 0;
}

int path_id(const struct http_request *req, int64_t *ret, struct err *err)
{
	int r = str_to_i64(str_c(http_path_param(req, "id")), "job id", 1, INT64_MAX, ret, err);

	return r < 0 ? err_set(err, ERR_INVALID_FIELD, "job id: not a positive number") : 0;
}
