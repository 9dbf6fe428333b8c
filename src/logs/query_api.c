/*
 * GET /logs/query: the seeds' parameters (job_id, repo_id, contains, limit, hours_back), and attempt, text, since,
 * until, cursor, order. Always of one organisation.
 */
#include <inttypes.h>

#include "base/clock.h"
#include "base/mem.h"
#include "logs/handlers.h"
#include "logs/query.h"
#include "model/limits.h"

#define HOUR_NS (3600 * NS_PER_S)
#define SEARCH_NS (10 * NS_PER_S)
enum { LIMIT_DEFAULT = 100 };

static int read_time(const struct http_request *req, const char *name, int64_t *ret, struct err *err)
{
	const char *text = http_query(req, name);

	if (text == NULL)
		return 0;
	int rc = clock_parse(str_c(text), ret, err);
	return rc < 0 ? err_set(err, ERR_INVALID_FIELD, "%s: not a time like 2026-11-21T12:40:00Z", name) : 0;
}

/* How far back: as asked, but no further than allowed. Who names a job wants all of it, however old. */
static int read_span(const struct app *app, const struct http_request *req, struct log_query *q, struct err *err)
{
	int64_t most = app->opts.settings->query_max_hours;
	int64_t hours = most;
	int64_t since_at = 0;

	int rc = http_query_i64(req, "hours_back", 1, INT32_MAX, &hours, err);
	if (rc == 0)
		rc = read_time(req, "since", &since_at, err);
	if (rc == 0)
		rc = read_time(req, "until", &q->until_at, err);
	if (rc < 0)
		return rc;
	if (q->job_id == 0 || http_query(req, "hours_back") != NULL)
		q->since_at = clock_unix_ns() - (hours < most ? hours : most) * HOUR_NS;
	if (since_at > q->since_at)
		q->since_at = since_at;
	return 0;
}

static int read_order(const struct http_request *req, bool *ret_oldest_first, struct err *err)
{
	const char *order = http_query(req, "order");

	if (order == NULL || strcmp(order, "newest") == 0)
		return 0;
	if (strcmp(order, "oldest") != 0)
		return err_set(err, ERR_INVALID_FIELD, "order: neither newest nor oldest");
	*ret_oldest_first = true;
	return 0;
}

static int read_numbers(const struct http_request *req, struct log_query *q, struct err *err)
{
	int64_t limit = LIMIT_DEFAULT;
	int64_t org_id = 0;

	int rc = http_query_i64(req, "org_id", 1, JOB_ID_MAX, &org_id, err);
	if (rc == 0)
		rc = request_org(req, SCOPE_PULL, org_id, &q->org_id, err);
	if (rc == 0)
		rc = http_query_i64(req, "job_id", 1, JOB_ID_MAX, &q->job_id, err);
	if (rc == 0)
		rc = http_query_i64(req, "attempt", 0, UINT32_MAX, &q->attempt, err);
	if (rc == 0)
		rc = http_query_i64(req, "repo_id", 0, JOB_ID_MAX, &q->repo_id, err);
	if (rc == 0)
		rc = http_query_i64(req, "cursor", 0, JOB_ID_MAX, &q->cursor, err);
	if (rc == 0)
		rc = http_query_i64(req, "limit", 1, LOG_QUERY_LIMIT_MAX, &limit, err);
	q->limit = (size_t)limit;
	return rc;
}

static int read_query(const struct app *app, const struct http_request *req, struct log_query *q, struct err *err)
{
	const char *text = http_query(req, "text");

	int rc = read_numbers(req, q, err);
	if (rc == 0)
		rc = read_span(app, req, q, err);
	if (rc == 0)
		rc = read_order(req, &q->oldest_first, err);
	if (rc < 0)
		return rc;
	bool one = q->job_id != 0 && q->attempt != LOG_QUERY_ANY_ATTEMPT;
	if (q->attempt != LOG_QUERY_ANY_ATTEMPT && q->job_id == 0)
		return err_set(err, ERR_INVALID_FIELD, "attempt: needs job_id beside it");
	if (q->cursor != 0 && !one)
		return err_set(err, ERR_INVALID_FIELD, "cursor: needs job_id and attempt beside it");
	q->text = str_c(text != NULL ? text : http_query(req, "contains"));
	return 0;
}

static int reply_lines(struct http_request *req, const struct log_result *found)
{
	autovar(buf) body = {0};

	buf_putc(&body, '[');
	for (size_t i = 0; i < found->count; i++) {
		log_line_encode(&found->lines[i], &body);
		body.data[body.len - 1] = ','; /* its newline */
	}
	if (found->count > 0)
		body.data[body.len - 1] = ']';
	else
		buf_putc(&body, ']');
	return http_reply_buf(req, 200, "application/json", &body);
}

int query_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autovar(log_result) found = {0};
	struct log_query q = {
		.attempt = LOG_QUERY_ANY_ATTEMPT,
		.deadline_ns = clock_monotonic_ns() + SEARCH_NS,
	};

	metrics_inc(app->metrics, M_QUERY_REQUESTS);
	int rc = read_query(app, req, &q, err);
	if (rc == 0)
		rc = log_query_run(app->store, &q, &found, err);
	if (rc < 0) {
		metrics_inc(app->metrics, M_QUERY_ERRORS);
		return rc;
	}
	return reply_lines(req, &found);
}
