/*
 * GET /logs/tail: job_id, attempt (the newest where it is not named), cursor (or Last-Event-ID), follow. NDJSON, or
 * server-sent events for who accepts text/event-stream.
 */
#include "base/mem.h"
#include "logs/handlers.h"
#include "logs/tail.h"
#include "model/limits.h"

static ptrdiff_t tail_stream_read(void *state, char *to, size_t cap, bool idle)
{
	static const ptrdiff_t meanings[] = {
		[-TAIL_END] = HTTP_STREAM_END,
		[-TAIL_WAIT] = HTTP_STREAM_WAIT,
		[-TAIL_FAILED] = HTTP_STREAM_ABORT,
	};
	ptrdiff_t got = tail_read(state, to, cap);

	if (got == TAIL_WAIT && idle)
		return tail_idle(state, to, cap);
	return got > 0 ? got : meanings[-got];
}

static void tail_stream_free(void *state)
{
	tail_free(state);
}

static bool follows(void *wanted, const void *tag)
{
	return segment_key_eq(wanted, tag);
}

void tail_wake(struct app *app, const struct segment_key *key)
{
	struct segment_key copy = *key;

	(void)http_wait_wake(app->followers, SIZE_MAX, follows, &copy);
}

/* The newest attempt that has written something; else the first. */
static int newest_attempt(struct app *app, struct segment_key *key, struct err *err)
{
	autovar(log_list) list = {0};

	key->attempt = 1;
	int rc = log_store_list(app->store, key->org_id, key->job_id, &list, err);
	for (size_t i = 0; i < list.count; i++) {
		if (i == 0 || list.items[i].key.attempt > key->attempt)
			key->attempt = list.items[i].key.attempt;
	}
	return rc;
}

static int read_follow(const struct http_request *req, bool *ret, struct err *err)
{
	const char *text = http_query(req, "follow");

	if (text == NULL || strcmp(text, "true") == 0 || strcmp(text, "1") == 0)
		return 0;
	if (strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
		return err_set(err, ERR_INVALID_FIELD, "follow: neither true nor false");
	*ret = false;
	return 0;
}

static int read_cursor(const struct http_request *req, int64_t *ret, struct err *err)
{
	const char *last = http_header(req, "Last-Event-ID");

	if (last != NULL && http_query(req, "cursor") == NULL)
		return str_to_i64(str_c(last), "Last-Event-ID", 0, JOB_ID_MAX, ret, err);
	return http_query_i64(req, "cursor", 0, JOB_ID_MAX, ret, err);
}

static int read_tail(struct app *app, const struct http_request *req, struct tail_opts *opts, struct err *err)
{
	const char *accept = http_header(req, "Accept");
	int64_t org_id = 0;

	int rc = http_query_i64(req, "org_id", 1, JOB_ID_MAX, &org_id, err);
	if (rc == 0)
		rc = request_org(req, SCOPE_PULL, org_id, &opts->key.org_id, err);
	if (rc == 0)
		rc = http_query_i64(req, "job_id", 1, JOB_ID_MAX, &opts->key.job_id, err);
	if (rc == 0)
		rc = http_query_i64(req, "attempt", 0, UINT32_MAX, &opts->key.attempt, err);
	if (rc == 0)
		rc = read_cursor(req, &opts->cursor, err);
	if (rc == 0)
		rc = read_follow(req, &opts->follow, err);
	if (rc < 0)
		return rc;
	opts->events = accept != NULL && strstr(accept, "text/event-stream") != NULL;
	if (opts->key.job_id == 0)
		return err_set(err, ERR_INVALID_FIELD, "job_id: is missing");
	return http_query(req, "attempt") == NULL ? newest_attempt(app, &opts->key, err) : 0;
}

int tail_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct tail_opts opts = {.follow = true};

	int rc = read_tail(app, req, &opts, err);
	if (rc < 0)
		return rc;
	struct segment_key *tag = arena_alloc(http_arena(req), sizeof(*tag));
	*tag = opts.key;
	return http_reply_stream(req, 200,
				 &(struct http_stream){
					 .content_type = opts.events ? "text/event-stream" : "application/x-ndjson",
					 .read = tail_stream_read,
					 .free = tail_stream_free,
					 .state = tail_new(app->store, &opts),
					 .list = app->followers,
					 .tag = tag,
				 });
}
