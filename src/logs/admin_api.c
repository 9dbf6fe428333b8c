/*
 * What an operator does with logs: DELETE /logs, and /logs/retention. For admins' tokens, each change with a line in
 * the log that says who.
 */
#include <inttypes.h>

#include "base/js.h"
#include "base/log.h"
#include "base/mem.h"
#include "logs/handlers.h"
#include "logs/retention.h"
#include "model/limits.h"

/* The organisation has to be named: nothing is deleted by leaving something out. */
static int read_org(const struct http_request *req, const char *right, int64_t *ret, struct err *err)
{
	const struct claims *c = http_claims(req);

	if (!claims_may(c, right))
		return err_set(err, ERR_FORBIDDEN, "Token lacks %s scope", right);
	if (http_query(req, "org_id") == NULL)
		return err_set(err, ERR_INVALID_FIELD, "org_id: is missing");
	int rc = http_query_i64(req, "org_id", 1, JOB_ID_MAX, ret, err);
	if (rc == 0 && c->org_id != 0 && c->org_id != *ret)
		return err_set(err, ERR_FORBIDDEN, "org_id: the token is for organisation %" PRId64, c->org_id);
	return rc;
}

struct deleted {
	size_t attempts;
	size_t kept; /* attempts that go on: of them the number of their lines stays, so that the next ones fit */
	uint64_t bytes;
};

static int delete_all(struct app *app, int64_t org_id, int64_t job_id, struct deleted *ret, struct err *err)
{
	autovar(log_list) list = {0};

	int rc = log_store_list(app->store, org_id, job_id, &list, err);
	for (size_t i = 0; i < list.count && rc == 0; i++) {
		uint64_t bytes = 0;
		rc = log_store_drop(app->store, &list.items[i].key, LOG_DROP_ALL, 0, &bytes, err);
		if (rc < 0)
			return rc;
		struct attempt_state left = {0};
		if (log_store_state(app->store, &list.items[i].key, &left, err) == 0 && left.exists)
			ret->kept++;
		ret->attempts += rc == 0;
		ret->bytes += bytes;
		rc = 0;
	}
	/* Also where nothing was found: an earlier call may have ended before this. */
	return rc < 0 ? rc : log_store_flush(app->store, err);
}

int logs_delete(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	const struct claims *c = http_claims(req);
	struct deleted deleted = {0};
	int64_t org_id = 0;
	int64_t job_id = 0;

	int rc = read_org(req, "delete-logs", &org_id, err);
	if (rc == 0)
		rc = http_query_i64(req, "job_id", 1, JOB_ID_MAX, &job_id, err);
	if (rc == 0)
		rc = delete_all(app, org_id, job_id, &deleted, err);
	if (rc < 0)
		return rc;
	metrics_add(app->metrics, M_DELETED_ATTEMPTS, deleted.attempts);
	metrics_add(app->metrics, M_DELETED_BYTES, deleted.bytes);
	log_info("audit: logs deleted by request", F("by", c->subject), F("org", org_id), F("job", job_id),
		 F("attempts", deleted.attempts), F("bytes", deleted.bytes));
	struct js *body = js_new_object();
	js_set(body, "deleted_attempts", js_new_int((int64_t)deleted.attempts));
	js_set(body, "deleted_bytes", js_new_int((int64_t)deleted.bytes));
	js_set(body, "running_attempts", js_new_int((int64_t)deleted.kept));
	return http_reply_js(req, 200, body);
}

static int reply_limits(const struct app *app, struct http_request *req, int64_t org_id)
{
	bool own = false;
	struct retention_limits limits = retention_get(app->retention, org_id, &own);
	struct js *body = js_new_object();

	js_set(body, "org_id", js_new_int(org_id));
	js_set(body, "days", js_new_int(limits.days));
	js_set(body, "bytes", js_new_int(limits.bytes));
	js_set(body, "own", js_new_bool(own));
	return http_reply_js(req, 200, body);
}

int retention_read(void *ctx, struct http_request *req, struct err *err)
{
	int64_t org_id = 0;
	int rc = read_org(req, "log-retention", &org_id, err);

	return rc < 0 ? rc : reply_limits(ctx, req, org_id);
}

static const struct js_field limit_fields[] = {
	{.name = "days",
	 .type = JS_FIELD_I64,
	 .flags = JS_REQUIRED,
	 .offset = offsetof(struct retention_limits, days),
	 .min = 0,
	 .max = RETENTION_DAYS_MAX},
	{.name = "bytes",
	 .type = JS_FIELD_I64,
	 .flags = JS_REQUIRED,
	 .offset = offsetof(struct retention_limits, bytes),
	 .min = 0,
	 .max = JOB_ID_MAX},
};
static const struct js_shape limit_shape = JS_SHAPE(struct retention_limits, limit_fields);

/* NULL: the default again. */
static int change_limits(struct app *app, struct http_request *req, int64_t org_id,
			 const struct retention_limits *limits, struct err *err)
{
	const struct claims *c = http_claims(req);

	int rc = retention_set(app->retention, org_id, limits, err);
	if (rc < 0)
		return rc;
	log_info("audit: log retention changed", F("by", c->subject), F("org", org_id), F("own", limits != NULL),
		 F("days", limits != NULL ? limits->days : 0), F("bytes", limits != NULL ? limits->bytes : 0));
	return reply_limits(app, req, org_id);
}

int retention_put(void *ctx, struct http_request *req, struct err *err)
{
	struct retention_limits limits = {0};
	int64_t org_id = 0;

	int rc = read_org(req, "log-retention", &org_id, err);
	if (rc == 0)
		rc = http_body_decode(req, &limit_shape, &limits, err);
	return rc < 0 ? rc : change_limits(ctx, req, org_id, &limits, err);
}

int retention_delete(void *ctx, struct http_request *req, struct err *err)
{
	int64_t org_id = 0;
	int rc = read_org(req, "log-retention", &org_id, err);

	return rc < 0 ? rc : change_limits(ctx, req, org_id, NULL, err);
}
