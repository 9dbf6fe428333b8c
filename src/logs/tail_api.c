/*
 * GET /logs/tail: one attempt (the newest where it is not named) from a line on, as NDJSON, or as server-sent events
 * for who accepts text/event-stream.
 */
#include <inttypes.h>

#include "base/mem.h"
#include "logs/handlers.h"
#include "logs/params.h"
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

/* A cursor of the query string, else of a reconnecting event source. */
static int read_cursor(const struct http_request *req, const char *cursor, int64_t *ret, struct err *err)
{
	const char *last = http_header(req, "Last-Event-ID");

	if (cursor != NULL)
		return str_to_i64(str_c(cursor), "cursor", 0, JOB_ID_MAX, ret, err);
	return last != NULL ? str_to_i64(str_c(last), "Last-Event-ID", 0, JOB_ID_MAX, ret, err) : 0;
}

/* The last `count` lines that pass. */
static int seek_back(struct app *app, struct http_request *req, struct tail_opts *opts, int64_t count,
		     const struct attempt_state *state, struct err *err)
{
	enum log_partial partial = LOG_WHOLE;

	if (!log_filter_narrows(&opts->filter)) {
		opts->cursor = count < state->last_seq ? state->last_seq - count : 0;
		return 0;
	}
	if (count == 0) {
		opts->cursor = state->last_seq;
		return 0;
	}
	int rc = log_query_last(app->store, &opts->key, &opts->filter, count, &opts->budget, &opts->cursor, &partial,
				err);
	if (rc == 0 && partial != LOG_WHOLE)
		http_reply_header(req, "X-Nimbus-Partial", log_partial_name(partial));
	return rc;
}

/* Where it begins: behind a cursor, else before the last lines, else with the first. */
static int find_start(struct app *app, struct http_request *req, const struct log_params *p, struct tail_opts *opts,
		      struct err *err)
{
	struct attempt_state state = {0};
	int64_t cursor = -1;

	int rc = read_cursor(req, p->cursor, &cursor, err);
	if (rc == 0)
		rc = log_store_state(app->store, &opts->key, &state, err);
	if (rc < 0)
		return rc;
	if (cursor > state.last_seq)
		return err_set(
			err, ERR_NOT_FOUND,
			"job %" PRId64 " attempt %" PRId64 " has no line %" PRId64 ": its log %s %" PRId64,
			opts->key.job_id, opts->key.attempt, cursor,
			state.last_seq > 0 ? "ends with line" : "was deleted, or never began; lines:", state.last_seq);
	if (cursor < 0 && p->tail >= 0)
		return seek_back(app, req, opts, p->tail, &state, err);
	opts->cursor = cursor > 0 ? cursor : 0;
	return 0;
}

static void on_searched(void *ctx, const struct segment_key *key, enum log_partial partial, uint64_t scanned)
{
	struct app *app = ctx;

	search_count(app, partial, scanned);
	gate_leave(app->searches, key->org_id);
}

static int read_tail(struct app *app, const struct http_request *req, struct log_params *p, struct tail_opts *opts,
		     struct err *err)
{
	const char *accept = http_header(req, "Accept");

	int rc = request_params(req, p, &opts->key.org_id, err);
	if (rc < 0)
		return rc;
	if (p->job_id == 0)
		return err_set(err, ERR_INVALID_FIELD, "job_id: is missing");
	opts->key.job_id = p->job_id;
	opts->key.attempt = p->attempt;
	opts->filter = p->filter;
	opts->follow = p->follow;
	opts->events = accept != NULL && strstr(accept, "text/event-stream") != NULL;
	return p->attempt == LOG_QUERY_ANY_ATTEMPT ? newest_attempt(app, &opts->key, err) : 0;
}

static int reply_tail(struct app *app, struct http_request *req, const struct tail_opts *opts)
{
	struct segment_key *tag = arena_alloc(http_arena(req), sizeof(*tag));

	*tag = opts->key;
	return http_reply_stream(req, 200,
				 &(struct http_stream){
					 .content_type = opts->events ? "text/event-stream" : "application/x-ndjson",
					 .read = tail_stream_read,
					 .free = tail_stream_free,
					 .state = tail_new(app->store, opts),
					 .list = app->followers,
					 .tag = tag,
				 });
}

int tail_get(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct log_params p;
	struct tail_opts opts = {.searched = on_searched, .ctx = app};

	int rc = read_tail(app, req, &p, &opts, err);
	if (rc < 0)
		return rc;
	bool search = log_filter_narrows(&opts.filter);
	if (search)
		rc = search_enter(app, req, opts.key.org_id, err);
	if (rc < 0)
		return rc;
	opts.budget = search_budget(app);
	rc = find_start(app, req, &p, &opts, err);
	if (rc < 0 && search)
		gate_leave(app->searches, opts.key.org_id);
	return rc < 0 ? rc : reply_tail(app, req, &opts);
}
