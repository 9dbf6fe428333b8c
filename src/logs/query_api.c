/*
 * GET /logs/query: the seeds' parameters (job_id, repo_id, contains, limit, hours_back) and ours. Always of one
 * organisation.
 */
#include <inttypes.h>

#include "base/clock.h"
#include "base/mem.h"
#include "logs/handlers.h"
#include "logs/params.h"
#include "logs/query.h"

#define HOUR_NS (3600 * NS_PER_S)

static const char *param_of(const void *ctx, const char *name)
{
	return http_query(ctx, name);
}

/* A token of a job reads that job, in all its attempts. */
static int keep_to_job(const struct http_request *req, struct log_params *p, struct err *err)
{
	const struct claims *c = http_claims(req);

	if (c->job_id == 0)
		return 0;
	if (p->job_id != 0 && p->job_id != c->job_id)
		return err_set(err, ERR_FORBIDDEN, "job_id: the token is for job %" PRId64 ", not %" PRId64, c->job_id,
			       p->job_id);
	p->job_id = c->job_id;
	return 0;
}

int request_params(const struct http_request *req, struct log_params *ret, int64_t *ret_org, struct err *err)
{
	int rc = log_params_read(param_of, req, ret, err);

	if (rc == 0)
		rc = request_org(req, SCOPE_PULL, ret->org_id, ret_org, err);
	return rc == 0 ? keep_to_job(req, ret, err) : rc;
}

struct log_budget search_budget(const struct app *app)
{
	const struct logging_settings *settings = app->opts.settings;

	return (struct log_budget){
		.deadline_ns = clock_monotonic_ns() + settings->query_timeout,
		.bytes = (uint64_t)settings->query_scan_bytes,
	};
}

int search_enter(struct app *app, struct http_request *req, int64_t org_id, struct err *err)
{
	int rc = gate_enter(app->searches, org_id, err);

	if (rc < 0) {
		metrics_inc(app->metrics, M_QUERY_REFUSED);
		http_retry_after(req, 1);
		http_hint(req, "wait until one of them has ended, then ask again");
	}
	return rc;
}

/* How far back: as asked, but no further than allowed. Who names a job wants all of it, however old. */
static void bound_span(const struct app *app, const struct log_params *p, struct log_filter *f)
{
	int64_t most = app->opts.settings->query_max_hours;
	int64_t hours = p->hours_back != 0 && p->hours_back < most ? p->hours_back : most;
	int64_t since_at = clock_unix_ns() - hours * HOUR_NS;

	if ((p->job_id == 0 || p->hours_back != 0) && since_at > f->since_at)
		f->since_at = since_at;
}

static int read_query(const struct app *app, const struct http_request *req, struct log_query *q, struct err *err)
{
	struct log_params p;

	int rc = request_params(req, &p, &q->org_id, err);
	if (rc < 0)
		return rc;
	q->job_id = p.job_id;
	q->attempt = p.attempt;
	q->filter = p.filter;
	q->oldest_first = p.oldest_first;
	q->limit = (size_t)p.limit;
	bound_span(app, &p, &q->filter);
	if (p.cursor == NULL)
		return 0;
	rc = log_cursor_parse(str_c(p.cursor), p.attempt != LOG_QUERY_ANY_ATTEMPT, &q->after, err);
	/* 0 of one attempt: before its first line, whichever that is. */
	q->resumed = p.attempt == LOG_QUERY_ANY_ATTEMPT || q->after.seq != 0;
	return rc;
}

static bool wants_ndjson(const struct http_request *req)
{
	const char *accept = http_header(req, "Accept");

	return accept != NULL && strstr(accept, "application/x-ndjson") != NULL;
}

static void put_lines(const struct log_result *found, bool ndjson, struct buf *body)
{
	if (!ndjson)
		buf_putc(body, '[');
	for (size_t i = 0; i < found->count; i++) {
		log_line_show(&found->lines[i], body);
		if (!ndjson)
			body->data[body->len - 1] = i + 1 < found->count ? ',' : ']'; /* its newline */
	}
	if (!ndjson && found->count == 0)
		buf_putc(body, ']');
}

/* The end of NDJSON. A cursor is digits and dots. */
static void put_end(const struct log_result *found, const char *cursor, struct buf *body)
{
	const char *partial = log_partial_name(found->partial);

	buf_printf(body, "{\"end\":%s", found->more ? "false" : "true");
	if (found->more)
		buf_printf(body, ",\"cursor\":\"%s\"", cursor);
	if (partial != NULL)
		buf_printf(body, ",\"partial\":\"%s\"", partial);
	buf_puts(body, "}\n");
}

static int reply_found(struct http_request *req, const struct log_query *q, const struct log_result *found)
{
	bool ndjson = wants_ndjson(req);
	autovar(buf) body = {0};
	autovar(buf) cursor = {0};

	put_lines(found, ndjson, &body);
	if (found->more) {
		log_cursor_write(&found->next, q->attempt != LOG_QUERY_ANY_ATTEMPT, &cursor);
		http_reply_header(req, "X-Nimbus-Cursor", cursor.data);
	}
	if (found->partial != LOG_WHOLE)
		http_reply_header(req, "X-Nimbus-Partial", log_partial_name(found->partial));
	if (ndjson)
		put_end(found, cursor.data, &body);
	return http_reply_buf(req, 200, ndjson ? "application/x-ndjson" : "application/json", &body);
}

void search_count(struct app *app, enum log_partial partial, uint64_t scanned)
{
	metrics_add(app->metrics, M_QUERY_SCANNED, scanned);
	if (partial != LOG_WHOLE)
		metrics_inc(app->metrics, M_QUERY_PARTIAL);
}

static int search(struct app *app, struct http_request *req, struct log_query *q, struct log_result *found,
		  struct err *err)
{
	int rc = read_query(app, req, q, err);

	if (rc == 0)
		rc = search_enter(app, req, q->org_id, err);
	if (rc < 0)
		return rc;
	q->budget = search_budget(app);
	rc = log_query_run(app->store, q, found, err);
	gate_leave(app->searches, q->org_id);
	if (rc == 0)
		search_count(app, found->partial, found->scanned);
	return rc;
}

int query_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	autovar(log_result) found = {0};
	struct log_query q = {0};

	metrics_inc(app->metrics, M_QUERY_REQUESTS);
	int rc = search(app, req, &q, &found, err);
	if (rc < 0) {
		metrics_inc(app->metrics, M_QUERY_ERRORS);
		return rc;
	}
	return reply_found(req, &q, &found);
}
