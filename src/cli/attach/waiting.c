#include "cli/attach/waiting.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/mem.h"

#define ASK_AFTER_NS (3 * NS_PER_S)

struct waiting {
	struct waiting_opts opts;
	struct loop_source *timer;
	struct http_pending *call;
};

static void on_answer(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct waiting *w = ctx;
	autoptr(js) v = NULL;

	w->call = NULL;
	if (err != NULL || js_parse(buf_str(&reply->body), &v, NULL) < 0)
		return;
	const char *sentence = js_text(js_get(v, "why"), NULL);
	if (sentence != NULL)
		w->opts.tell(w->opts.ctx, sentence);
}

static void on_timer(void *ctx)
{
	struct waiting *w = ctx;
	autofree char *path = xasprintf("/api/jobs/%" PRId64 "/why", w->opts.job_id);
	struct err none = {0};

	if (w->opts.busy(w->opts.ctx))
		loop_timer_set(w->timer, clock_monotonic_ns() + ASK_AFTER_NS);
	else if (plane_call(w->opts.plane, path, (struct http_call){0}, on_answer, w, &w->call, &none) < 0)
		w->call = NULL; /* not worth an error */
}

int waiting_new(const struct waiting_opts *opts, struct waiting **ret, struct err *err)
{
	autoptr(waiting) w = xcalloc(1, sizeof(*w));

	w->opts = *opts;
	int rc = loop_add_timer(opts->plane->loop, clock_monotonic_ns() + ASK_AFTER_NS, LOOP_NORMAL, on_timer, w,
				&w->timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(w);
	return 0;
}

void waiting_free(struct waiting *w)
{
	if (w == NULL)
		return;
	http_pending_cancel(w->call);
	loop_source_free(w->timer);
	free(w);
}
