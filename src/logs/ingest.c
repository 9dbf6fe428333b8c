/*
 * POST /logs and POST /logs/seal.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <strings.h>

#include "base/clock.h"
#include "base/js.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/unpack.h"
#include "logs/handlers.h"
#include "model/limits.h"
#include "proto/log_line.h"

/* --- lines --- */

struct ingest {
	struct app *app;
	struct unpack *unpack; /* NULL: the body comes as it is */
	struct buf body;
	size_t counted; /* of app->body_bytes */
};

static int open_coding(struct ingest *in, struct http_request *req, struct err *err)
{
	const char *coding = http_header(req, "Content-Encoding");

	if (coding == NULL || strcasecmp(coding, "identity") == 0)
		return 0;
	in->unpack = unpack_new(str_trim(str_c(coding)), http_request_route(req)->body_max);
	if (in->unpack != NULL)
		return 0;
	http_reply_header(req, "Accept-Encoding", UNPACK_CODINGS);
	return err_set(err, ERR_CODING, "Content-Encoding: '%.64s' is none that is taken (" UNPACK_CODINGS ")", coding);
}

static void ingest_free(void *state)
{
	struct ingest *in = state;

	atomic_fetch_sub(&in->app->body_bytes, in->counted);
	unpack_free(in->unpack);
	buf_fini(&in->body);
	free(in);
}

static int ingest_begin(void *ctx, struct http_request *req, void **ret_state, struct err *err)
{
	struct app *app = ctx;
	int64_t org_id = 0;
	const struct claims *c = http_claims(req);

	metrics_inc(app->metrics, M_INGEST_REQUESTS);
	/* An admin's lines say themselves whose they are. */
	if (c->org_id != 0 || c->audience != TOKEN_ADMIN) {
		int rc = request_org(req, SCOPE_PUSH, 0, &org_id, err);
		if (rc < 0)
			return rc;
	}
	struct ingest *in = xcalloc(1, sizeof(*in));
	in->app = app;
	int rc = open_coding(in, req, err);
	if (rc < 0)
		ingest_free(in);
	else
		*ret_state = in;
	return rc;
}

/* What all requests hold together has a bound. */
static int count(struct ingest *in, size_t holds, struct err *err)
{
	size_t others = atomic_fetch_add(&in->app->body_bytes, holds - in->counted) - in->counted;

	in->counted = holds;
	if (others + holds > LOGS_BODIES_MAX)
		return err_set(err, ERR_UNAVAILABLE, "too many log lines at once: send this batch again");
	return 0;
}

static int ingest_chunk(void *state, struct str bytes, struct err *err)
{
	struct ingest *in = state;

	if (in->unpack == NULL) {
		int rc = count(in, in->body.len + bytes.len, err);
		if (rc == 0)
			buf_append_str(&in->body, bytes);
		return rc;
	}
	int rc = unpack_feed(in->unpack, bytes, &in->body, err);
	return rc < 0 ? rc : count(in, in->body.len + unpack_memory(in->unpack), err);
}

/* Whose the lines are: one organisation, the token's; one job and attempt, where the token names them. */
static int check_owner(const struct http_request *req, const struct log_batch *batch, int64_t *ret_org, struct err *err)
{
	const struct claims *c = http_claims(req);
	int64_t org_id = c->org_id != 0 ? c->org_id : batch->lines[0].org_id;

	int rc = request_org(req, SCOPE_PUSH, org_id, &org_id, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < batch->count; i++) {
		const struct log_line *line = &batch->lines[i];
		if (line->org_id != 0 && line->org_id != org_id)
			return err_set(err, ERR_INVALID, "Entry org_id mismatch: expected %" PRId64 ", got %" PRId64,
				       org_id, line->org_id);
		if (c->job_id != 0 && (line->job_id != c->job_id || line->attempt != c->attempt))
			return err_set(err, ERR_FORBIDDEN,
				       "the token is for job %" PRId64 " attempt %" PRId64 ", not for job %" PRId64
				       " attempt %" PRId64,
				       c->job_id, c->attempt, line->job_id, line->attempt);
	}
	*ret_org = org_id;
	return 0;
}

static int store_batch(struct app *app, const struct http_request *req, struct log_batch *batch,
		       struct log_append *done, struct err *err)
{
	int64_t org_id = 0;

	if (batch->count == 0)
		return 0;
	int rc = check_owner(req, batch, &org_id, err);
	if (rc == 0)
		rc = log_store_append(app->store, org_id, batch->lines, batch->count, done, err);
	if (rc < 0)
		metrics_add(app->metrics, M_ROWS_DROPPED, batch->count);
	return rc;
}

static int ingest_end(void *state, struct http_request *req, struct err *err)
{
	struct ingest *in = state;
	struct app *app = in->app;
	struct log_batch batch = {0};
	struct log_append done = {0};
	int64_t begun_ns = clock_monotonic_ns();

	int rc = in->unpack != NULL ? unpack_end(in->unpack, err) : 0;
	if (rc == 0)
		rc = log_batch_decode(buf_str(&in->body), http_arena(req), &batch, err);
	if (rc == 0)
		rc = store_batch(app, req, &batch, &done, err);
	if (rc < 0)
		return rc;
	metrics_inc(app->metrics, M_BATCHES);
	metrics_add(app->metrics, M_BATCH_BYTES, in->body.len);
	metrics_add(app->metrics, M_ROWS_INGESTED, done.stored);
	metrics_add(app->metrics, M_ROWS_REPEATED, done.repeated);
	metrics_add(app->metrics, M_ROWS_CUT, done.cut);
	metrics_observe_ns(app->metrics, M_BATCH_LATENCY, clock_monotonic_ns() - begun_ns);
	return http_reply_null(req, 202);
}

const struct http_sink ingest_sink = {
	.begin = ingest_begin,
	.chunk = ingest_chunk,
	.end = ingest_end,
	.free = ingest_free,
};

/* --- seals --- */

struct seal_request {
	int64_t org_id;
	int64_t job_id;
	int64_t attempt;
	const struct js *last_seq;
};

#define FIELD(text, kind, member, ...)                                                                              \
	{                                                                                                           \
		.name = text, .type = JS_FIELD_##kind, .offset = offsetof(struct seal_request, member), __VA_ARGS__ \
	}

static const struct js_field seal_fields[] = {
	FIELD("org_id", I64, org_id, .flags = JS_REQUIRED, .min = 1, .max = JOB_ID_MAX),
	FIELD("job_id", I64, job_id, .flags = JS_REQUIRED, .min = 1, .max = JOB_ID_MAX),
	FIELD("attempt", I64, attempt, .flags = JS_REQUIRED, .min = 1, .max = UINT32_MAX),
	FIELD("last_seq", ANY, last_seq),
};
static const struct js_shape seal_shape = JS_SHAPE(struct seal_request, seal_fields);

/* null: what has come is all, and nothing more is taken. */
static int read_last_seq(const struct js *value, int64_t *ret, struct err *err)
{
	*ret = SEGMENT_SEAL_NOW;
	if (value == NULL || js_type(value) == JS_NULL)
		return 0;
	*ret = js_int(value, -1);
	if (*ret < 0 || *ret > JOB_ID_MAX)
		return err_set(err, ERR_INVALID_FIELD, "last_seq: neither a line's number, nor 0, nor null");
	return 0;
}

int seal_post(void *ctx, struct http_request *req, struct err *err)
{
	struct app *app = ctx;
	struct seal_request seal;
	int64_t last_seq = 0;

	if (!claims_may(http_claims(req), "seal"))
		return err_set(err, ERR_FORBIDDEN, "Token lacks seal scope");
	int rc = http_body_decode(req, &seal_shape, &seal, err);
	if (rc == 0)
		rc = read_last_seq(seal.last_seq, &last_seq, err);
	if (rc < 0)
		return rc;
	const struct segment_key key = {seal.org_id, seal.job_id, seal.attempt};
	rc = log_store_seal(app->store, &key, last_seq, err);
	if (rc < 0)
		return rc;
	metrics_inc(app->metrics, M_SEALS);
	log_info("log sealed", F("job", key.job_id), F("attempt", key.attempt), F("last_seq", last_seq));
	return http_reply_null(req, 202);
}
