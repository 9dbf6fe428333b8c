#include "shim/job_log.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/secret.h"
#include "net/http_client.h"
#include "shim/output.h"
#include "shim/shipper.h"
#include "shim/spool.h"

#define SPOOL_MAX_DEFAULT (INT64_C(1) << 30)
#define RETRY_NS NS_PER_S

struct job_log {
	struct loop *loop;
	int dir_fd;
	const struct shim_msg *start;
	const struct job_log_ops *ops;
	void *ctx;
	struct loop_source *timer; /* the disk was full */
	struct spool *spool;
	struct output *output; /* NULL: closed */
	struct http_client *client;
	char *url;		     /* where the pipeline has moved to; NULL: it has not */
	struct shipper *shipper;     /* NULL: nothing is shipped (any more) */
	struct shim_shipping counts; /* of a shipper that was let go of */
	bool full;
	bool lines_lost; /* the pipeline refused them while it was not sealed */
	bool sync_failed;
};

static void tell_room(struct job_log *l)
{
	l->ops->room(l->ctx, !l->full && spool_has_room(l->spool));
}

static void try_later(struct job_log *l)
{
	loop_timer_set(l->timer, clock_monotonic_ns() + RETRY_NS);
}

static void on_timer(void *ctx)
{
	struct job_log *l = ctx;

	l->ops->retry(l->ctx);
}

static bool write_spool(struct job_log *l)
{
	struct err err = {0};
	bool written = spool_write(l->spool, &err) == 0;

	if (!written && !l->full)
		log_warn("the log spool cannot be written: the job's output waits", F("job", l->start->start.job_id),
			 F("error", &err));
	if (!written)
		try_later(l);
	l->full = !written;
	tell_room(l);
	if (l->shipper != NULL)
		shipper_wake(l->shipper);
	return written;
}

static void on_acked(void *ctx)
{
	struct job_log *l = ctx;

	tell_room(l);
	l->ops->shipped(l->ctx);
}

/* Called by the shipper, which goes on living until the loop is back: so it is only let go of at the end. */
static void on_refused(void *ctx, const struct err *err)
{
	struct job_log *l = ctx;

	log_warn("the logging pipeline takes no more of this attempt: the rest is dropped",
		 F("job", l->start->start.job_id), F("attempt", l->start->start.attempt), F("error", err));
	l->lines_lost = err->code != ERR_SEALED;
	spool_drop(l->spool);
	tell_room(l);
	l->ops->shipped(l->ctx);
}

static int start_shipping(struct job_log *l, struct err *err)
{
	const struct shim_start *job = &l->start->start;

	if (job->log_url == NULL || job->log_token == NULL)
		return 0;
	int rc = http_client_new(l->loop, &l->client, err);
	if (rc < 0)
		return rc;
	return shipper_new(&(struct shipper_opts){.loop = l->loop,
						  .client = l->client,
						  .spool = l->spool,
						  .url = job->log_url,
						  .token = job->log_token,
						  .job_id = job->job_id,
						  .attempt = job->attempt,
						  .org_id = job->org_id,
						  .repo_id = job->repo_id,
						  .agent_id = job->agent_id,
						  .acked = on_acked,
						  .refused = on_refused,
						  .ctx = l},
			   &l->shipper, err);
}

int job_log_open(struct loop *loop, int dir_fd, const struct shim_msg *start, const struct job_log_ops *ops, void *ctx,
		 struct job_log **ret, struct err *err)
{
	autoptr(job_log) l = xcalloc(1, sizeof(*l));
	int64_t max = start->start.spool_max > 0 ? start->start.spool_max : SPOOL_MAX_DEFAULT;

	l->loop = loop;
	l->dir_fd = dir_fd;
	l->start = start;
	l->ops = ops;
	l->ctx = ctx;
	int rc = loop_add_timer(loop, LOOP_NEVER, LOOP_NORMAL, on_timer, l, &l->timer, err);
	if (rc == 0)
		rc = spool_open(&(struct spool_opts){dir_fd, SHIM_SPOOL, max, 0}, &l->spool, err);
	if (rc < 0)
		return rc;
	l->output = output_new(l->spool);
	rc = start_shipping(l, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

void job_log_free(struct job_log *l)
{
	if (l == NULL)
		return;
	shipper_free(l->shipper);
	http_client_free(l->client);
	free(l->url);
	output_free(l->output);
	spool_free(l->spool);
	loop_source_free(l->timer);
	free(l);
}

void job_log_mask(struct job_log *l, const char *name, struct str value)
{
	if (l->output != NULL)
		output_mask(l->output, name, value);
}

void job_log_feed(struct job_log *l, enum log_stream stream, struct str bytes)
{
	if (l->output != NULL)
		output_feed(l->output, stream, bytes);
}

void job_log_note(struct job_log *l, const char *text)
{
	if (l->output != NULL)
		output_note(l->output, LOG_LINE_WARNING, "nimbus: %s", text);
}

void job_log_flush(struct job_log *l)
{
	(void)write_spool(l);
}

void job_log_close(struct job_log *l, const char *note)
{
	if (l->output == NULL)
		return;
	output_end(l->output, LOG_STREAM_STDOUT);
	output_end(l->output, LOG_STREAM_STDERR);
	if (note != NULL)
		output_note(l->output, LOG_LINE_ERROR, "nimbus: %s", note);
	output_free(TAKE(l->output));
}

static int keep_for_resume(struct job_log *l, struct err *err)
{
	autovar(buf) bytes = {0};
	struct shim_msg start = *l->start; /* borrows from it */

	/* Who only ships the log needs no other token. */
	start.start.job_token = NULL;
	int rc = shim_msg_encode(&start, &bytes, err);
	if (rc == 0)
		rc = file_write_atomic(l->dir_fd, SHIM_SHIP_FILE, buf_str(&bytes), 0600, err);
	if (bytes.data != NULL)
		secret_wipe(bytes.data, bytes.len);
	return rc;
}

int job_log_read_order(int dir_fd, struct arena *arena, struct shim_msg *ret, struct err *err)
{
	autovar(buf) bytes = {0};
	autovar(shim_msg) m = {0};

	int rc = file_read(dir_fd, SHIM_SHIP_FILE, SHIM_MSG_MAX, &bytes, err);
	if (rc == 0)
		rc = shim_msg_decode(buf_str(&bytes), arena, &m, err);
	if (rc == 0 && m.type != SHIM_START)
		rc = err_set(err, ERR_INVALID, "%s holds another message", SHIM_SHIP_FILE);
	if (bytes.data != NULL)
		secret_wipe(bytes.data, bytes.len);
	if (rc < 0)
		return rc;
	*ret = TAKE_STRUCT(m);
	return 0;
}

bool job_log_durable(struct job_log *l)
{
	struct err err = {0};

	if (!write_spool(l))
		return false;
	if (job_log_is_shipped(l) && l->shipper != NULL)
		return true;
	if (l->sync_failed) {
		try_later(l);
		return false;
	}
	int rc = spool_sync(l->spool, &err);
	/* A second sync would succeed and promise nothing: the kernel has forgotten what it could not write. What it
	 * still shows is sent, and the job's end waits until the pipeline has all of it. */
	l->sync_failed = rc == -ERR_IO;
	if (rc == 0)
		rc = keep_for_resume(l, &err);
	if (rc < 0) {
		log_warn(l->sync_failed ? "the disk failed: the job's end waits until its log has arrived"
					: "the log's end cannot be written: the job's end waits",
			 F("job", l->start->start.job_id), F("error", &err));
		try_later(l);
	}
	return rc == 0;
}

int64_t job_log_last_seq(const struct job_log *l)
{
	return l->lines_lost ? -1 : spool_last_seq(l->spool);
}

void job_log_redirect(struct job_log *l, const char *url)
{
	const char *now = l->url != NULL ? l->url : l->start->start.log_url;

	if (l->shipper == NULL || strcmp(now, url) == 0)
		return;
	log_info("the logging pipeline has another address", F("job", l->start->start.job_id), F("url", url));
	char *copy = xstrdup(url);
	shipper_redirect(l->shipper, copy);
	free(l->url);
	l->url = copy;
}

void job_log_stop(struct job_log *l)
{
	l->counts = job_log_counts(l);
	shipper_free(TAKE(l->shipper));
}

bool job_log_is_shipped(const struct job_log *l)
{
	return l->shipper == NULL || spool_pending(l->spool) == 0;
}

void job_log_remove(struct job_log *l)
{
	struct err err = {0};

	if (spool_remove(l->spool, &err) < 0)
		log_warn("the log spool could not be removed", F("error", &err));
	(void)unlinkat(l->dir_fd, SHIM_SHIP_FILE, 0);
}

struct shim_shipping job_log_counts(const struct job_log *l)
{
	return l->shipper != NULL ? shipper_counts(l->shipper) : l->counts;
}
