#include "shim/workspace.h"

#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "shim/window.h"

#define LIMIT_DEFAULT_NS (INT64_C(1800) * NS_PER_S)

enum phase { IDLE, BRINGING, COLLECTING, STOPPED };

struct workspace {
	struct workspace_opts opts;
	enum phase phase;
	struct streams *streams;
	int window_fd;
	size_t at;			/* which input or output */
	struct loop_source *step_timer; /* what is next, from the loop */
	struct loop_source *limit_timer;
	bool late; /* no further one is begun */

	/* The one that is under way. */
	struct stream *stream;	      /* NULL: closed */
	struct http_pending *pending; /* NULL: over */
	struct window window;
	struct buf words;  /* to be said to the guest of it */
	bool answered;	   /* the call is over */
	bool closed;	   /* the stream is */
	bool guest_done;   /* PACK: the guest has given all of it, and well */
	struct err failed; /* the first cause */
};

static void step_soon(struct workspace *w)
{
	loop_timer_set(w->step_timer, clock_monotonic_ns());
}

static void fail(struct workspace *w, const struct err *err)
{
	if (w->failed.code == 0)
		w->failed = *err;
}

/* Whichever side ends first, the other is ended too; then comes the next. */
static void side_is_over(struct workspace *w)
{
	if (w->failed.code != 0 && w->pending != NULL) {
		http_pending_cancel(TAKE(w->pending));
		w->answered = true;
	}
	if (w->failed.code != 0 && w->stream != NULL)
		stream_close(w->stream, GUEST_CLOSE_FAILED, "it does not come"); /* calls closed() */
	if (w->answered && w->closed)
		step_soon(w);
}

/* What is to be said of the window's pieces is a few words, which have room; unless the guest makes pieces of next to
 * nothing, and does not listen. */
static int say(struct workspace *w)
{
	struct str words = buf_str(&w->words);
	struct err err = {0};
	int rc = 0;

	if (w->stream != NULL && words.len > stream_room(w->stream))
		rc = err_set(&err, ERR_INVALID, "the guest hears nothing of what it is told");
	else if (w->stream != NULL && words.len > 0)
		stream_send(w->stream, words);
	buf_clear(&w->words);
	if (rc < 0)
		fail(w, &err);
	return rc;
}

static void end_input(struct workspace *w)
{
	window_finish(&w->window, &w->words);
	if (say(w) == 0)
		stream_end(w->stream);
}

static void on_answer(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct workspace *w = ctx;

	(void)reply;
	w->pending = NULL;
	w->answered = true;
	if (err != NULL)
		fail(w, err);
	else if (w->phase == BRINGING && w->stream != NULL)
		end_input(w);
	side_is_over(w);
}

static void on_closed(void *ctx, uint32_t status, const char *text)
{
	struct workspace *w = ctx;
	struct err err = {0};

	w->stream = NULL;
	w->closed = true;
	w->guest_done = status == GUEST_CLOSE_OK;
	if (status != GUEST_CLOSE_OK) {
		(void)err_set(&err, ERR_INVALID, "%s",
			      text[0] != '\0' ? text : "the guest ended before all of it was there");
		fail(w, &err);
	} else if (w->phase == COLLECTING && w->pending != NULL) {
		http_pending_go_on(w->pending);
	}
	side_is_over(w);
}

/* --- in: from the answer into the window --- */

static int on_take(void *ctx, struct str bytes)
{
	struct workspace *w = ctx;
	struct err err = {0};

	if (w->stream == NULL)
		return HTTP_STREAM_FAIL;
	if (window_room(&w->window) < bytes.len)
		return HTTP_STREAM_LATER;
	if (window_put(&w->window, bytes, &w->words, &err) < 0) {
		fail(w, &err);
		return HTTP_STREAM_FAIL;
	}
	return say(w) == 0 ? 0 : HTTP_STREAM_FAIL;
}

/* Pieces that it has taken. */
static void on_in_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	struct workspace *w = ctx;
	struct err err = {0};

	(void)part;
	stream_consumed(st, bytes.len);
	if (window_returned(&w->window, bytes, &err) < 0) {
		fail(w, &err);
		side_is_over(w);
	} else if (w->pending != NULL) {
		http_pending_go_on(w->pending);
	}
}

static const struct stream_ops in_ops = {.data = on_in_data, .closed = on_closed};

static char *url_of(const struct workspace *w, const char *what)
{
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/%s/%zu", w->opts.job->job_id, what, w->at);

	return http_url(w->opts.job->control_url, path);
}

static void begin(struct workspace *w)
{
	buf_clear(&w->words);
	window_begin(&w->window, w->window_fd);
	w->answered = w->closed = w->guest_done = false;
	w->failed = (struct err){0};
}

static int bring_one(struct workspace *w, struct err *err)
{
	autofree struct guest_open *open = xcalloc(1, sizeof(*open));
	autofree char *url = url_of(w, "inputs");
	const struct http_call call = {
		.url = url, .token = w->opts.job->job_token, .timeout_ns = INT64_MAX, .take = on_take, .stream_ctx = w};

	begin(w);
	open->kind = GUEST_KIND_UNPACK;
	open->name = w->opts.job->inputs.items[w->at];
	int rc = streams_open(w->streams, open, &in_ops, w, &w->stream, err);
	return rc < 0 ? rc : http_client_start(w->opts.client, &call, on_answer, w, &w->pending, err);
}

/* --- out: from the window into the request --- */

/* Pieces that lie in it. */
static void on_out_data(void *ctx, struct stream *st, int part, struct str bytes)
{
	struct workspace *w = ctx;
	struct err err = {0};

	(void)part;
	stream_consumed(st, bytes.len);
	if (window_came(&w->window, bytes, &err) < 0) {
		fail(w, &err);
		side_is_over(w);
	} else if (w->pending != NULL) {
		http_pending_go_on(w->pending);
	}
}

static ptrdiff_t on_give(void *ctx, char *to, size_t cap)
{
	struct workspace *w = ctx;
	struct err err = {0};

	ptrdiff_t len = window_get(&w->window, to, cap, &w->words, &err);
	if (len < 0)
		fail(w, &err);
	if (say(w) < 0 || len < 0)
		return HTTP_STREAM_FAIL;
	if (len > 0)
		return len;
	if (w->closed)
		return w->guest_done ? 0 : HTTP_STREAM_FAIL;
	return HTTP_STREAM_LATER;
}

static const struct stream_ops out_ops = {.data = on_out_data, .closed = on_closed};

static int took_too_long(struct err *err)
{
	return err_set(err, ERR_TIMEOUT, "it took too long");
}

static int collect_one(struct workspace *w, struct err *err)
{
	autofree struct guest_open *open = xcalloc(1, sizeof(*open));
	autofree char *url = url_of(w, "outputs");
	const struct http_call call = {.url = url,
				       .method = "PUT",
				       .token = w->opts.job->job_token,
				       .content_type = "application/x-tar",
				       .timeout_ns = INT64_MAX,
				       .give = on_give,
				       .give_size = -1,
				       .stream_ctx = w};

	if (w->late)
		return took_too_long(err);
	begin(w);
	open->kind = GUEST_KIND_PACK;
	open->pack.count = 1;
	open->pack.paths[0] = w->opts.job->outputs.items[w->at];
	int rc = streams_open(w->streams, open, &out_ops, w, &w->stream, err);
	return rc < 0 ? rc : http_client_start(w->opts.client, &call, on_answer, w, &w->pending, err);
}

/* --- one after the other --- */

static void drop_current(struct workspace *w)
{
	http_pending_cancel(TAKE(w->pending));
	w->answered = true;
	if (w->stream != NULL)
		stream_close(w->stream, GUEST_CLOSE_FAILED, "it is not wanted any more");
	loop_timer_set(w->step_timer, LOOP_NEVER);
}

static void end_bringing(struct workspace *w, const struct err *err)
{
	const struct err why = err != NULL ? *err : (struct err){0};

	w->phase = IDLE;
	loop_timer_set(w->limit_timer, LOOP_NEVER);
	window_free_memory(&w->window);
	w->opts.ops->brought(w->opts.ctx, why.code != 0 ? &why : NULL);
}

static void bring_next(struct workspace *w)
{
	struct err err = {0};

	if (w->at < w->opts.job->inputs.count && bring_one(w, &err) < 0) {
		drop_current(w);
		end_bringing(w, &err);
	} else if (w->at == w->opts.job->inputs.count) {
		end_bringing(w, NULL);
	}
}

static void tell_missing(struct workspace *w, const struct err *err)
{
	autofree char *text = xasprintf("output %s did not come: %s", w->opts.job->outputs.items[w->at], err->msg);

	w->opts.ops->missing(w->opts.ctx, text);
}

static void collect_next(struct workspace *w)
{
	struct err err = {0};

	for (; w->at < w->opts.job->outputs.count; w->at++) {
		if (collect_one(w, &err) == 0)
			return;
		drop_current(w);
		tell_missing(w, &err);
	}
	w->phase = IDLE;
	loop_timer_set(w->limit_timer, LOOP_NEVER);
	w->opts.ops->collected(w->opts.ctx);
}

static void on_step(void *ctx)
{
	struct workspace *w = ctx;
	const struct err failed = w->failed;
	struct err err = {0};

	w->failed = (struct err){0};
	if (w->phase == BRINGING && failed.code != 0) {
		(void)err_set(&err, (enum err_code)failed.code, "input %s: %s", w->opts.job->inputs.items[w->at],
			      failed.msg);
		end_bringing(w, &err);
	} else if (w->phase == BRINGING) {
		w->at++;
		bring_next(w);
	} else if (w->phase == COLLECTING) {
		if (failed.code != 0)
			tell_missing(w, &failed);
		w->at++;
		collect_next(w);
	}
}

static void on_limit(void *ctx)
{
	struct workspace *w = ctx;
	struct err err = {0};

	w->late = true;
	(void)took_too_long(&err);
	fail(w, &err);
	side_is_over(w);
}

static void start(struct workspace *w, enum phase phase, struct streams *streams, int window_fd)
{
	w->phase = phase;
	w->streams = streams;
	w->window_fd = window_fd;
	w->at = 0;
	loop_timer_set(w->limit_timer, clock_monotonic_ns() + w->opts.limit_ns);
}

void workspace_bring(struct workspace *w, struct streams *streams, int window_fd)
{
	start(w, BRINGING, streams, window_fd);
	bring_next(w);
}

void workspace_collect(struct workspace *w, struct streams *streams, int window_fd)
{
	start(w, COLLECTING, streams, window_fd);
	collect_next(w);
}

void workspace_stop(struct workspace *w)
{
	if (w->phase == STOPPED)
		return;
	w->phase = STOPPED;
	drop_current(w);
	loop_timer_set(w->step_timer, LOOP_NEVER);
	loop_timer_set(w->limit_timer, LOOP_NEVER);
}

/* --- life --- */

int workspace_new(const struct workspace_opts *opts, struct workspace **ret, struct err *err)
{
	autoptr(workspace) w = xcalloc(1, sizeof(*w));

	w->opts = *opts;
	w->opts.limit_ns = opts->limit_ns > 0 ? opts->limit_ns : LIMIT_DEFAULT_NS;
	int rc = loop_add_timer(opts->loop, LOOP_NEVER, LOOP_NORMAL, on_step, w, &w->step_timer, err);
	if (rc == 0)
		rc = loop_add_timer(opts->loop, LOOP_NEVER, LOOP_NORMAL, on_limit, w, &w->limit_timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(w);
	return 0;
}

void workspace_free(struct workspace *w)
{
	if (w == NULL)
		return;
	http_pending_cancel(TAKE(w->pending));
	if (w->stream != NULL)
		stream_close(w->stream, GUEST_CLOSE_FAILED, "it is not wanted any more");
	loop_source_free(w->step_timer);
	loop_source_free(w->limit_timer);
	buf_fini(&w->words);
	free(w);
}
