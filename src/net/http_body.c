#include "net/http_body.h"

#include <strings.h>

#include "base/clock.h"

enum { DROP_MAX = 64 << 20 };

int http_body_find_length(struct http_request *req, struct err *err)
{
	req->body_length = req->head.codings > 0 ? -1 : 0;
	if (req->head.lengths > 0)
		return str_to_i64(req->head.length, "Content-Length", 0, INT64_MAX, &req->body_length, err);
	return 0;
}

/*
 * Answers an error when the whole request is there: to an answer before that, the library closes the connection, and a
 * client that is still sending would not see it, since the kernel resets a connection that is closed with bytes unread.
 * So a body is dropped first, within bounds; unless its sender waits to be told to go on.
 */
enum http_body_next http_body_refuse(struct http_bodies *b, struct http_request *req, bool begun, const struct err *err)
{
	const char *expect = http_header(req, "Expect");
	bool asks = expect != NULL && strcasecmp(expect, "100-continue") == 0;

	req->failure = *err;
	/* Where the body ends cannot be told: nothing after it can be read either. */
	if (req->close)
		return HTTP_BODY_ANSWER;
	if (req->body_length != 0) {
		req->close = true;
		if (!begun && (asks || req->body_length > DROP_MAX))
			return HTTP_BODY_ANSWER;
	}
	req->drop_deadline_ns = clock_monotonic_ns() + b->drop_ns;
	return HTTP_BODY_DROP;
}

enum http_body_next http_body_drop(struct http_request *req, size_t size)
{
	if (size == 0)
		return HTTP_BODY_ANSWER;
	req->dropped += size;
	return req->dropped <= DROP_MAX && clock_monotonic_ns() < req->drop_deadline_ns ? HTTP_BODY_DROP
											: HTTP_BODY_CUT;
}

int http_body_too_large(const struct http_request *req, struct err *err)
{
	return err_set(err, ERR_TOO_LARGE, "the body is over %zu bytes", req->body_max);
}

/* Of whom nobody knows who it is (a webhook is judged by its whole body) there is half the room: strangers must not
 * keep out those who have a token, such as agents that renew their leases. */
static size_t room_for(const struct http_request *req)
{
	return http_claims(req) != NULL ? HTTP_BODIES_MAX : HTTP_BODIES_MAX / 2;
}

static int keep(struct http_bodies *b, struct http_request *req, struct str bytes, struct err *err)
{
	if (atomic_fetch_add(&b->bytes, bytes.len) + bytes.len > room_for(req)) {
		atomic_fetch_sub(&b->bytes, bytes.len);
		return err_set(err, ERR_UNAVAILABLE, "the server holds more request bodies than it has room for");
	}
	buf_append_str(&req->body, bytes);
	return 0;
}

/* What is in memory counts against all: who brings it a byte a minute would soon hold all there is. */
static bool is_too_slow(const struct http_bodies *b, const struct http_request *req)
{
	return req->match.route->run != HTTP_SINK && clock_monotonic_ns() - req->begun_ns > b->timeout_ns;
}

enum http_body_next http_body_take(struct http_bodies *b, struct http_request *req, struct str bytes)
{
	struct err err = {0};
	int rc = 0;

	if (is_too_slow(b, req))
		return HTTP_BODY_CUT;
	req->received += bytes.len;
	if (req->received > req->body_max)
		rc = http_body_too_large(req, &err);
	else if (req->match.route->run == HTTP_SINK)
		rc = req->match.route->sink->chunk(req->sink_state, bytes, &err);
	else
		rc = keep(b, req, bytes, &err);
	return rc < 0 ? http_body_refuse(b, req, true, &err) : HTTP_BODY_ON;
}

void http_body_release(struct http_bodies *b, const struct http_request *req)
{
	atomic_fetch_sub(&b->bytes, req->body.len);
}
