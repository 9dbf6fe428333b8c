#include "net/http_request.h"

#include <assert.h>
#include <inttypes.h>
#include <strings.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

struct http_request *http_request_new(struct http_server *server, const char *raw_target)
{
	struct http_request *req = xcalloc(1, sizeof(*req));

	req->server = server;
	req->fd = -1;
	req->waiter.fd = -1;
	req->begun_ns = clock_monotonic_ns();
	req->arena = arena_new();
	req->raw_target = arena_strdup(req->arena, raw_target);
	req->method = "";
	pthread_mutex_init(&req->lock, NULL);
	return req;
}

static void answer_clear(struct http_answer *answer)
{
	buf_fini(&answer->body);
	if (answer->streamed && answer->stream.free != NULL)
		answer->stream.free(answer->stream.state);
	answer->streamed = false;
	if (answer->upgraded)
		answer->upgrade.cancel(answer->upgrade.state);
	answer->upgraded = false;
	if (answer->has_fd)
		fd_close(&answer->fd);
	answer->has_fd = false;
}

void http_request_free(struct http_request *req)
{
	if (req == NULL)
		return;
	answer_clear(&req->answer);
	if (req->sink_begun)
		req->match.route->sink->free(req->sink_state);
	js_free(req->body_js);
	buf_fini(&req->body);
	arena_free(req->arena);
	pthread_mutex_destroy(&req->lock);
	free(req);
}

/* --- reading --- */

void http_request_add_header(struct http_request *req, struct str name, struct str value)
{
	enum { STEP = 16 };
	if (req->header_count % STEP == 0) {
		struct http_param *more = arena_calloc(req->arena, req->header_count + STEP, sizeof(*more));
		if (req->header_count > 0)
			memcpy(more, req->headers, req->header_count * sizeof(*more));
		req->headers = more;
	}
	req->headers[req->header_count++] =
		(struct http_param){arena_str(req->arena, name), arena_str(req->arena, value)};
}

static char *make_id(struct http_request *req)
{
	const char *given = http_header(req, "X-Request-Id");

	if (given != NULL && http_request_id_sane(str_c(given)))
		return arena_strdup(req->arena, given);
	return arena_printf(req->arena, "%016" PRIx64, crypto_random_u64());
}

/* The values of every header of that name. */
static const char *const *header_lines(const struct http_request *req, const char *name, size_t *ret_count)
{
	const char **lines = arena_calloc(req->arena, req->header_count + 1, sizeof(*lines));

	*ret_count = 0;
	for (size_t i = 0; i < req->header_count; i++) {
		if (strcasecmp(req->headers[i].name, name) == 0)
			lines[(*ret_count)++] = req->headers[i].value;
	}
	return lines;
}

static int find_origin(struct http_request *req, struct err *err)
{
	struct http_forwarded f = {0};

	req->origin = (struct http_origin){
		.unix_peer = !address_of(&req->peer, &req->origin.address),
		.https = req->link != NULL && http_connection_tls(req->link) != NULL,
	};
	(void)address_of(&req->peer, &req->origin.address);
	f.for_lines = header_lines(req, "X-Forwarded-For", &f.for_count);
	f.proto_lines = header_lines(req, "X-Forwarded-Proto", &f.proto_count);
	return http_forwarded_resolve(&f, req->proxies, &req->origin, err);
}

int http_request_parse(struct http_request *req, const struct cidr_list *proxies, struct err *err)
{
	req->id = make_id(req);
	req->proxies = proxies;
	req->target = arena_alloc(req->arena, sizeof(*req->target));
	int found = find_origin(req, err);
	int rc = http_target_parse(str_c(req->raw_target), req->arena, req->target, found == 0 ? err : NULL);
	return found < 0 ? found : rc;
}

struct arena *http_arena(struct http_request *req)
{
	return req->arena;
}

const char *http_request_id(const struct http_request *req)
{
	return req->id;
}

const struct http_route *http_request_route(const struct http_request *req)
{
	return req->match.route;
}

const char *http_path_param(const struct http_request *req, const char *name)
{
	for (size_t i = 0; i < req->match.param_count; i++) {
		if (str_eq(req->match.params[i].name, str_c(name)))
			return req->match.params[i].value;
	}
	assert(!"the route's pattern has no such name");
	return NULL;
}

const char *http_query(const struct http_request *req, const char *name)
{
	for (size_t i = 0; i < req->target->query_count; i++) {
		if (strcmp(req->target->query[i].name, name) == 0)
			return req->target->query[i].value;
	}
	return NULL;
}

int http_query_i64(const struct http_request *req, const char *name, int64_t min, int64_t max, int64_t *ret,
		   struct err *err)
{
	const char *text = http_query(req, name);

	return text != NULL ? str_to_i64(str_c(text), name, min, max, ret, err) : 0;
}

const char *http_header(const struct http_request *req, const char *name)
{
	for (size_t i = 0; i < req->header_count; i++) {
		if (strcasecmp(req->headers[i].name, name) == 0)
			return req->headers[i].value;
	}
	return NULL;
}

struct str http_bearer(const struct http_request *req)
{
	return http_bearer_parse(str_c(http_header(req, "Authorization")));
}

struct str http_body(const struct http_request *req)
{
	return buf_str(&req->body);
}

int http_body_js(struct http_request *req, const struct js **ret, struct err *err)
{
	if (req->body_js == NULL) {
		int rc = js_parse(http_body(req), &req->body_js, err);
		if (rc < 0) {
			(void)err_wrap(err, "the body is not JSON");
			return rc;
		}
	}
	*ret = req->body_js;
	return 0;
}

int http_body_decode(struct http_request *req, const struct js_shape *shape, void *ret, struct err *err)
{
	const struct js *body = NULL;

	int rc = http_body_js(req, &body, err);
	return rc < 0 ? rc : js_decode(body, shape, req->arena, ret, err);
}

static bool has_any(const struct http_request *req, const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (http_header(req, names[i]) != NULL)
			return true;
	}
	return false;
}

/* The peer itself, before any header was believed. */
static bool peer_is_proxy(const struct http_request *req)
{
	struct http_origin peer = {.unix_peer = req->peer.ss_family == AF_UNIX};

	(void)address_of(&req->peer, &peer.address);
	return http_origin_is_proxy(&peer, req->proxies);
}

/* Somebody speaks for somebody else, and is not believed. */
static bool is_forwarded_by_a_stranger(const struct http_request *req)
{
	static const char *const names[] = {"Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"};

	return !peer_is_proxy(req) && has_any(req, names, ARRAY_LEN(names));
}

bool http_has_stray_forwarding(const struct http_request *req)
{
	static const char *const names[] = {"X-Forwarded-For", "X-Forwarded-Proto"};
	bool none = req->proxies == NULL || (req->proxies->count == 0 && !req->proxies->unix_peers);

	return none && has_any(req, names, ARRAY_LEN(names));
}

const struct address *http_remote(const struct http_request *req)
{
	return req->origin.unix_peer ? NULL : &req->origin.address;
}

const char *http_remote_addr(const struct http_request *req)
{
	char *text = arena_alloc(req->arena, ADDRESS_TEXT_MAX);

	if (req->origin.unix_peer)
		return "unix";
	address_write(&req->origin.address, text);
	return text;
}

const char *http_scheme(const struct http_request *req)
{
	return req->origin.https ? "https" : "http";
}

bool http_is_confidential(const struct http_request *req)
{
	return req->origin.https ||
	       (req->peer.ss_family == AF_UNIX && !peer_is_proxy(req) && !is_forwarded_by_a_stranger(req));
}

bool http_remote_is_loopback(const struct http_request *req)
{
	return !req->origin.unix_peer && !is_forwarded_by_a_stranger(req) && address_is_loopback(&req->origin.address);
}

void http_set_claims(struct http_request *req, void *claims)
{
	req->claims = claims;
}

void *http_claims(const struct http_request *req)
{
	return req->claims;
}

void http_set_state(struct http_request *req, void *state)
{
	req->state = state;
}

void *http_state(const struct http_request *req)
{
	return req->state;
}

/* --- answering --- */

int http_reply_buf(struct http_request *req, int status, const char *content_type, struct buf *body)
{
	answer_clear(&req->answer);
	req->answer.status = status;
	req->answer.content_type = content_type != NULL ? arena_strdup(req->arena, content_type) : NULL;
	req->answer.body = *body;
	*body = (struct buf){0};
	return 0;
}

int http_reply_bytes(struct http_request *req, int status, const char *content_type, struct str bytes)
{
	autovar(buf) copy = {0};

	buf_append_str(&copy, bytes);
	return http_reply_buf(req, status, content_type, &copy);
}

int http_reply_text(struct http_request *req, int status, const char *text)
{
	return http_reply_bytes(req, status, "text/plain; charset=utf-8", str_c(text));
}

int http_reply_empty(struct http_request *req, int status)
{
	return http_reply_bytes(req, status, NULL, (struct str){0});
}

static int reply_tree(struct http_request *req, int status, const struct js *body)
{
	autovar(buf) text = {0};

	js_write(body, &text);
	return http_reply_buf(req, status, "application/json", &text);
}

int http_reply_js(struct http_request *req, int status, struct js *body)
{
	autoptr(js) taken = body;

	return reply_tree(req, status, taken);
}

int http_reply_shape(struct http_request *req, int status, const struct js_shape *shape, const void *from)
{
	return http_reply_js(req, status, js_encode(shape, from));
}

int http_reply_fd(struct http_request *req, int status, const char *content_type, int fd, int64_t size)
{
	answer_clear(&req->answer);
	req->answer.status = status;
	req->answer.content_type = content_type;
	req->answer.fd = fd;
	req->answer.fd_size = size;
	req->answer.has_fd = true;
	return 0;
}

int http_reply_null(struct http_request *req, int status)
{
	return http_reply_bytes(req, status, "application/json", STR("null"));
}

int http_reply_stream(struct http_request *req, int status, const struct http_stream *stream)
{
	answer_clear(&req->answer);
	req->answer.status = status;
	req->answer.content_type = stream->content_type;
	req->answer.streamed = true;
	req->answer.stream = *stream;
	if (req->answer.stream.idle_ns == 0)
		req->answer.stream.idle_ns = 15 * NS_PER_S;
	return 0;
}

void http_reply_header(struct http_request *req, const char *name, const char *value)
{
	struct http_answer *answer = &req->answer;

	if (answer->header_count == answer->header_cap) {
		answer->header_cap += 8;
		struct http_param *more = arena_calloc(req->arena, answer->header_cap, sizeof(*more));
		if (answer->header_count > 0)
			memcpy(more, answer->headers, answer->header_count * sizeof(*more));
		answer->headers = more;
	}
	answer->headers[answer->header_count++] =
		(struct http_param){arena_strdup(req->arena, name), arena_strdup(req->arena, value)};
}

void http_hint(struct http_request *req, const char *hint)
{
	req->hint = arena_strdup(req->arena, hint);
}

void http_retry_after(struct http_request *req, unsigned seconds)
{
	req->retry_after = seconds;
}

void http_on_done(struct http_request *req, http_answered_fn *fn, void *arg)
{
	req->done = fn;
	req->done_arg = arg;
}

/* What went wrong inside is for the log; outside it would only tell an attacker about us. */
static const char *public_detail(const struct err *err)
{
	bool inside = err->code == ERR_IO || err->code == ERR_INTERNAL;

	return inside ? "the server could not carry out the request" : err->msg;
}

void http_answer_error(struct http_request *req, const struct err *err)
{
	const struct err_info *info = err_info(err->code);
	autoptr(js) body = js_new_object();

	js_set(body, "detail", js_new_text(public_detail(err)));
	js_set(body, "code", js_new_text(info->name));
	js_set(body, "hint", js_new_text(req->hint != NULL ? req->hint : info->hint));
	js_set(body, "request_id", js_new_text(req->id));
	(void)reply_tree(req, info->http_status, body);
	if (info->http_status == 429 || info->http_status == 503)
		http_reply_header(req, "Retry-After",
				  arena_printf(req->arena, "%u", req->retry_after > 0 ? req->retry_after : 1));
	if (info->http_status == 401)
		http_reply_header(req, "WWW-Authenticate", "Bearer realm=\"nimbus\"");
	if (err->code == ERR_IO || err->code == ERR_INTERNAL)
		log_error("request failed", F("request_id", req->id), F("code", info->name), F("error", err));
}

/* --- parking --- */

int http_park(struct http_request *req, struct http_wait_list *list, int64_t deadline_ns, const void *tag)
{
	req->parking = true;
	req->waiter.list = list;
	req->waiter.deadline_ns = deadline_ns;
	req->waiter.tag = tag;
	return HTTP_PARKED;
}

bool http_wait_over(const struct http_request *req)
{
	return req->over;
}

bool http_wait_woken(const struct http_request *req)
{
	return req->woken;
}
