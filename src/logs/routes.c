#include <inttypes.h>

#include "base/clock.h"
#include "base/mem.h"
#include "logs/handlers.h"
#include "model/limits.h"
#include "net/http_metrics.h"

enum { BODY_MAX = 16 << 20, SEAL_MAX = 64 << 10 };

static int healthz(void *ctx, struct http_request *req, struct err *err)
{
	(void)ctx;
	(void)err;
	return http_reply_bytes(req, 200, "application/json", STR("{\"status\":\"ok\"}"));
}

static int readyz(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;

	if (app->failed)
		return err_set(err, ERR_UNAVAILABLE, "the log store cannot write");
	if (http_server_stopping(app->server))
		return err_set(err, ERR_UNAVAILABLE, "stopping");
	/* Both services may be starting, and the first lines should not be refused for that. */
	if (!jwks_is_settled(app->jwks))
		return err_set(err, ERR_UNAVAILABLE, "the signing keys are not known yet");
	int rc = log_store_check_room(app->store, err);
	if (rc < 0)
		return rc;
	return http_reply_bytes(req, 200, "application/json", STR("{\"status\":\"ready\"}"));
}

static int metrics_text(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct log_store_counts counts = log_store_counts(app->store);
	autovar(buf) text = {0};

	(void)err;
	metrics_set(app->metrics, M_QUERY_ACTIVE, (double)gate_count(app->searches));
	metrics_set(app->metrics, M_QUERY_LIMIT, (double)app->opts.settings->query_concurrency);
	metrics_set(app->metrics, M_BODY_BYTES, (double)atomic_load(&app->body_bytes));
	metrics_set(app->metrics, M_BODY_LIMIT, LOGS_BODIES_MAX);
	metrics_set(app->metrics, M_FOLLOWERS, (double)http_wait_count(app->followers));
	metrics_set(app->metrics, M_STORE_GROUPS, (double)counts.groups);
	metrics_set(app->metrics, M_STORE_BYTES, (double)counts.bytes);
	metrics_set(app->metrics, M_STORE_REFUSED, (double)counts.refused);
	metrics_set(app->metrics, M_STORE_WAITING, (double)counts.waiting);
	metrics_write(app->metrics, &text);
	http_metrics_write(app->server, &text);
	return http_reply_buf(req, 200, METRICS_CONTENT_TYPE, &text);
}

const struct http_route logs_routes[] = {
	{"POST", "/logs", HTTP_SINK, ACCESS_WRITE, BODY_MAX, .sink = &ingest_sink},
	{"POST", "/logs/seal", HTTP_WORKER, ACCESS_ADMIN, SEAL_MAX, seal_post},
	{"DELETE", "/logs", HTTP_WORKER, ACCESS_ADMIN, .handle = logs_delete},
	{"GET", "/logs/retention", HTTP_WORKER, ACCESS_ADMIN, .handle = retention_read},
	{"PUT", "/logs/retention", HTTP_WORKER, ACCESS_ADMIN, .handle = retention_put},
	{"DELETE", "/logs/retention", HTTP_WORKER, ACCESS_ADMIN, .handle = retention_delete},
	{"GET", "/logs/query", HTTP_WORKER, ACCESS_READ, .handle = query_get},
	{"GET", "/logs/tail", HTTP_WORKER, ACCESS_READ, .handle = tail_get},

	{"GET", "/healthz", HTTP_INLINE, ACCESS_ALL, .handle = healthz, .probe = true},
	{"GET", "/readyz", HTTP_WORKER, ACCESS_ALL, .handle = readyz, .probe = true},
	{"GET", "/metrics", HTTP_INLINE, ACCESS_METRICS, .handle = metrics_text, .probe = true},
};
const size_t logs_route_count = ARRAY_LEN(logs_routes);

static int authorize_metrics(const struct app *app, const struct http_request *req, struct err *err)
{
	const struct secret *token = app->opts.settings->metrics_token;

	if (token == NULL)
		return http_remote_is_loopback(req)
			       ? 0
			       : err_set(err, ERR_FORBIDDEN,
					 "metrics are for this machine only: NIMBUS_LOGGING_METRICS_TOKEN is not set");
	if (!secret_equal(token, http_bearer(req) /* compared only */))
		return err_set(err, ERR_UNAUTH, "metrics: the metrics token is missing or wrong");
	return 0;
}

int logs_authorize(void *ctx, struct http_request *req, const struct http_route *route, struct err *err)
{
	struct app *app = ctx;

	if (route->access == ACCESS_ALL)
		return 0;
	if (route->access == ACCESS_METRICS)
		return authorize_metrics(app, req, err);
	struct claims *claims = arena_alloc(http_arena(req), sizeof(*claims));
	int rc = verifier_authorize(app->verifier, http_header(req, "Authorization"), route->access, clock_unix_ns(),
				    claims, err);
	if (rc < 0)
		return rc;
	http_set_claims(req, claims);
	return 0;
}

void logs_observe(void *ctx, const struct http_route *route, int status, int64_t duration_ns)
{
	struct app *app = ctx;

	(void)status;
	metrics_inc(app->metrics, M_HTTP_REQUESTS);
	/* How long somebody followed says nothing about us. */
	if (route != NULL && route->handle != tail_get)
		metrics_observe_ns(app->metrics, M_HTTP_LATENCY, duration_ns);
}

int request_org(const struct http_request *req, enum scope_op op, int64_t asked, int64_t *ret, struct err *err)
{
	const struct claims *c = http_claims(req);
	int64_t org_id = c->org_id;

	/* An admin's and a user's token of a shared secret name none. */
	if (org_id == 0 && (c->audience == TOKEN_ADMIN || (c->audience == TOKEN_USER && c->shared_secret)))
		org_id = asked != 0 ? asked : ORG_LOCAL;
	if (asked != 0 && asked != org_id)
		return err_set(err, ERR_FORBIDDEN, "org_id: the token is for organisation %" PRId64 ", not %" PRId64,
			       org_id, asked);
	if (!claims_allow(c, op, org_id, NULL))
		return err_set(err, ERR_FORBIDDEN, "Token lacks %s scope", op == SCOPE_PULL ? "pull" : "push");
	*ret = org_id;
	return 0;
}
