#include "cli/attach/upload.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/progress.h"

enum { TRIES = 5 };
#define RETRY_BASE_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS (2 * NS_PER_S)

struct upload {
	struct upload_opts opts;
	struct http_pending *call;
	struct loop_source *retry_timer;
	size_t next;
	unsigned tries;
	uint64_t before; /* bytes of those before */
	struct err read_err;
	struct progress progress;
};

static struct pack *current(const struct upload *u)
{
	return u->opts.files[u->next].pack;
}

static ptrdiff_t give(void *ctx, char *to, size_t cap)
{
	struct upload *u = ctx;
	size_t len = 0;

	if (pack_read(current(u), to, cap, &len, &u->read_err) < 0)
		return HTTP_STREAM_FAIL;
	progress_at(&u->progress, u->before + pack_bytes(current(u)));
	return (ptrdiff_t)len;
}

static void tell_notes(const struct upload *u)
{
	struct str rest = buf_str(pack_notes(current(u)));

	while (rest.len > 0) {
		struct str line = str_cut(&rest, '\n');
		autofree char *text = xmemdup0(line.data, line.len);
		u->opts.note(u->opts.ctx, text);
	}
}

static void fail_or_try_again(struct upload *u, const struct http_reply *reply, const struct err *err)
{
	struct err bad = *err;

	if (u->read_err.code != 0) {
		u->opts.failed(u->opts.ctx, &u->read_err);
	} else if (http_may_retry(reply) && u->tries < TRIES) {
		loop_timer_set(u->retry_timer,
			       clock_monotonic_ns() + http_backoff(u->tries++, RETRY_BASE_NS, RETRY_MAX_NS));
	} else {
		session_blame(u->opts.plane->session, reply, err);
		(void)err_wrap(&bad, "send the files");
		u->opts.failed(u->opts.ctx, &bad);
	}
}

static void on_sent(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct upload *u = ctx;

	u->call = NULL;
	if (err != NULL) {
		fail_or_try_again(u, reply, err);
		return;
	}
	u->before += pack_bytes(current(u));
	progress_end(&u->progress);
	tell_notes(u);
	u->next++;
	u->tries = 0;
	upload_start(u);
}

bool upload_done(const struct upload *u)
{
	return u->next == u->opts.file_count;
}

void upload_start(struct upload *u)
{
	struct err err = {0};

	if (upload_done(u))
		return;
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/inputs/%zu", u->opts.job_id, u->next);
	pack_rewind(current(u));
	if (plane_call(u->opts.plane, path,
		       (struct http_call){
			       .method = "PUT",
			       .content_type = "application/x-tar",
			       .timeout_ns = INT64_MAX,
			       .idle_ns = 60 * NS_PER_S,
			       .give = give,
			       .give_size = -1,
			       .stream_ctx = u,
		       },
		       on_sent, u, &u->call, &err) < 0)
		u->opts.failed(u->opts.ctx, &err);
}

static void on_retry(void *ctx)
{
	upload_start(ctx);
}

void upload_stop(struct upload *u)
{
	http_pending_cancel(TAKE(u->call));
	loop_timer_set(u->retry_timer, LOOP_NEVER);
	progress_end(&u->progress);
}

/* --- life --- */

static uint64_t all_bytes(const struct upload_opts *opts)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < opts->file_count; i++)
		sum += opts->files[i].bytes;
	return sum;
}

int upload_new(const struct upload_opts *opts, struct upload **ret, struct err *err)
{
	autoptr(upload) u = xcalloc(1, sizeof(*u));

	u->opts = *opts;
	int rc = loop_add_timer(opts->plane->loop, LOOP_NEVER, LOOP_NORMAL, on_retry, u, &u->retry_timer, err);
	if (rc < 0)
		return rc;
	progress_begin(&u->progress, "sending files", all_bytes(opts), opts->quiet);
	*ret = TAKE(u);
	return 0;
}

void upload_free(struct upload *u)
{
	if (u == NULL)
		return;
	progress_end(&u->progress);
	http_pending_cancel(u->call);
	loop_source_free(u->retry_timer);
	free(u);
}
