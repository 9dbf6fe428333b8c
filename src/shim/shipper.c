#include "shim/shipper.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum {
	BATCH_MAX = 512 * 1024, /* bytes in the spool; as JSON some more */
	BATCH_MIN = 1,		/* one line */
	CALL_TIMEOUT_S = 30,
	BACKOFF_MAX_DEFAULT_S = 5,
	PATIENCE_DEFAULT_S = 900,
};

#define BACKOFF_BASE_NS (50 * NS_PER_MS)

struct shipper {
	struct shipper_opts opts;
	struct http_pending *pending; /* NULL: nothing is under way */
	int64_t sent_bytes;	      /* of the spool, in what is under way */
	size_t batch;
	unsigned failures;	  /* in a row */
	int64_t refused_since_ns; /* 0: it was not refused last */
	struct shim_shipping counts;
	bool waits; /* for the back-off timer */
	bool over;
	struct loop_source *timer;
};

static void refuse(struct shipper *s, const struct err *err)
{
	s->over = true;
	s->opts.refused(s->opts.ctx, err);
}

struct batch {
	const struct shipper_opts *opts;
	struct buf json;
};

static void add_line(void *ctx, const struct spool_record *r)
{
	struct batch *b = ctx;

	log_line_encode(&(struct log_line){.job_id = b->opts->job_id,
					   .attempt = b->opts->attempt,
					   .seq = r->seq,
					   .stream = r->stream,
					   .markup = r->markup,
					   .level = r->level,
					   .message = r->message,
					   .timestamp = r->timestamp,
					   .org_id = b->opts->org_id,
					   .repo_id = b->opts->repo_id,
					   .agent_id = str_c(b->opts->agent_id)},
			&b->json);
}

static bool is_refusal(int status)
{
	return status >= 400 && status < 500 && status != 408 && status != 429;
}

/*
 * 409: the attempt is sealed, or lines are missing there that were acknowledged and so are gone here. Both stay so.
 * Other refusals may be a pipeline that is being repaired, or whose clock is wrong; but nobody repairs for ever.
 */
static bool is_final(struct shipper *s, int status)
{
	int64_t now = clock_monotonic_ns();

	if (!is_refusal(status)) {
		s->refused_since_ns = 0;
		return false;
	}
	if (s->refused_since_ns == 0)
		s->refused_since_ns = now;
	return status == 409 || now - s->refused_since_ns >= s->opts.patience_ns;
}

static void wait_and_retry(struct shipper *s, const struct err *err)
{
	if (s->failures == 0)
		log_warn("the logging pipeline takes no lines: keeping them until it does", F("job", s->opts.job_id),
			 F("error", err));
	int64_t wait_ns = http_backoff(s->failures, BACKOFF_BASE_NS, s->opts.backoff_max_ns);
	s->failures++;
	s->waits = true;
	loop_timer_set(s->timer, clock_monotonic_ns() + wait_ns);
}

static void on_done(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct shipper *s = ctx;

	s->pending = NULL;
	if (err == NULL) {
		if (s->failures > 0)
			log_info("the logging pipeline takes lines again", F("job", s->opts.job_id));
		s->failures = 0;
		s->refused_since_ns = 0;
		s->counts.batches++;
		spool_ack(s->opts.spool, s->sent_bytes);
		s->opts.acked(s->opts.ctx);
		shipper_wake(s);
		return;
	}
	s->counts.errors++;
	if (err->code == ERR_TOO_LARGE && s->batch > BATCH_MIN) {
		s->batch /= 2;
		wait_and_retry(s, err);
		return;
	}
	if (is_final(s, reply->status)) {
		refuse(s, err);
		return;
	}
	wait_and_retry(s, err);
}

static void send_batch(struct shipper *s)
{
	struct batch b = {.opts = &s->opts};
	struct err err = {0};

	int rc = spool_read(s->opts.spool, s->batch, add_line, &b, &s->sent_bytes, &err);
	if (rc < 0)
		refuse(s, &err);
	if (rc == 0 && s->sent_bytes > 0) {
		const struct http_call call = {.method = "POST",
					       .url = s->opts.url,
					       .token = s->opts.token,
					       .body = buf_str(&b.json),
					       .content_type = "application/x-ndjson",
					       .timeout_ns = CALL_TIMEOUT_S * NS_PER_S};
		rc = http_client_start(s->opts.client, &call, on_done, s, &s->pending, &err);
		if (rc < 0)
			wait_and_retry(s, &err);
	}
	buf_fini(&b.json);
}

void shipper_wake(struct shipper *s)
{
	if (s->pending == NULL && !s->waits && !s->over)
		send_batch(s);
}

static void on_timer(void *ctx)
{
	struct shipper *s = ctx;

	s->waits = false;
	shipper_wake(s);
}

int shipper_new(const struct shipper_opts *opts, struct shipper **ret, struct err *err)
{
	autoptr(shipper) s = xcalloc(1, sizeof(*s));

	s->opts = *opts;
	s->batch = BATCH_MAX;
	if (s->opts.backoff_max_ns == 0)
		s->opts.backoff_max_ns = BACKOFF_MAX_DEFAULT_S * NS_PER_S;
	if (s->opts.patience_ns == 0)
		s->opts.patience_ns = PATIENCE_DEFAULT_S * NS_PER_S;
	int rc = loop_add_timer(opts->loop, LOOP_NEVER, LOOP_NORMAL, on_timer, s, &s->timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(s);
	return 0;
}

void shipper_free(struct shipper *s)
{
	if (s == NULL)
		return;
	http_pending_cancel(s->pending);
	loop_source_free(s->timer);
	free(s);
}

void shipper_redirect(struct shipper *s, const char *url)
{
	s->opts.url = url;
}

struct shim_shipping shipper_counts(const struct shipper *s)
{
	return s->counts;
}
