/*
 * The HTTP client: the wrapper of libcurl. Two faces on one description of a call: http_client_do() blocks (workers,
 * commands; any thread), http_client_start() runs on a loop (agent, shim). http and https only, no redirects (a caller
 * may follow one: it is in the reply), no proxy for loopback, nothing unbounded: every call has a deadline and every
 * answer a largest size.
 * Servers of https are checked against the CA file of the variable NIMBUS_CA_BUNDLE, or else the system's.
 *
 * An answer outside 2xx is an error. Our services' {"detail", "code", "hint"} become a struct err with that code and
 * text; the hint stays in the reply.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

struct loop;
struct http_client;
struct http_pending;

/* loop NULL: for http_client_do(). Otherwise for http_client_start() only. */
int http_client_new(struct loop *loop, struct http_client **ret, struct err *err) must_check;
/* Cancels what is pending. */
void http_client_free(struct http_client *c);
AUTOPTR_DEFINE(http_client)

/* Gets a line of a streamed answer, without its newline. 0: go on; else the call ends there, successfully. */
typedef int (*http_line_fn)(void *ctx, struct str line);

/*
 * A body that is made as it is sent, or taken as it comes: memory is constant. HTTP_STREAM_LATER is for the loop's
 * face: nothing can be given, or taken, now; http_pending_go_on() has it asked again.
 */
enum { HTTP_STREAM_LATER = -1, HTTP_STREAM_FAIL = -2 };
/* Bytes put into `to`; 0: that was all; or one of the above. */
typedef ptrdiff_t http_give_fn(void *ctx, char *to, size_t cap);
/* 0: all of it was taken; or one of the above, and then nothing was. */
typedef int http_take_fn(void *ctx, struct str bytes);

struct http_call {
	const char *method; /* NULL: GET, or POST where there is a body */
	const char *url;
	const struct secret *token; /* sent as a bearer token; or NULL */
	const char *const *headers; /* further ones, "Name: value" */
	size_t header_count;
	struct str body;	  /* none when its pointer is NULL */
	const char *content_type; /* of the body; NULL: application/json */
	const char *request_id;	  /* X-Request-Id; or NULL */
	int64_t timeout_ns;	  /* of the call with all retries; 0: 30 s; INT64_MAX: none */
	int64_t idle_ns;	  /* ends a call that brings no byte for so long (whole seconds); 0: never */
	size_t max_reply;	  /* largest body, or largest line; 0: 1 MiB */
	/* Further attempts after a transport error, 429, 502, 503 or 504, with http_backoff() between them. The
	 * blocking face only: who runs on a loop has a timer and a state of its own. */
	unsigned retries;
	http_line_fn on_line; /* takes the body of a 2xx answer line by line instead of into the reply */
	void *line_ctx;
	http_give_fn *give; /* makes the body; such a call is not tried again */
	int64_t give_size;  /* ... of so many bytes; -1: not known before */
	http_take_fn *take; /* takes the body of a 2xx answer, which may be of any size */
	void *stream_ctx;
	/* Only connects, TLS and all. http_client_start() only: `done` is called with an empty reply, and where err is
	 * NULL the pending call stays until it is cancelled, and is the connection (http_pending_send() ...). What is
	 * said on it is the caller's. net/upgrade_client.h is made of it. */
	bool connect_only;
	bool certificate; /* find out until when the server's is good, where this call connects */
};

/* Filled as far as the answer came, also when the call failed. */
struct http_reply {
	int status; /* 0: there was no answer */
	struct buf body;
	char *hint;		      /* what an error answer advised; or NULL */
	char *redirect;		      /* the URL that a 3xx answer points to, http or https; or NULL */
	int64_t retry_after_ns;	      /* 0: not said */
	char request_id[80];	      /* the server's; may be empty */
	int64_t date_at;	      /* its clock, Unix ns in whole seconds; 0: not said */
	int64_t certificate_until_at; /* Unix ns; 0: not asked for, or none */
	/* Known, as status is, before the body's first bytes are taken: */
	char validator[128]; /* ETag, or else Last-Modified, for If-Range; may be empty */
	int64_t length;	     /* of the body as it was announced; -1: not said */
};
void http_reply_fini(struct http_reply *r);
AUTOVAR_DEFINE(http_reply)

/* `reply` is all zeros. ERR_UNAVAILABLE: no answer (not running, refused, name unknown, broken off); ERR_TIMEOUT. */
int http_client_do(struct http_client *c, const struct http_call *call, struct http_reply *reply, struct err *err)
	must_check;

/* err is NULL after a 2xx answer. Both are the callee's until it returns; it may move the body out with buf_take().
 * Called from the loop, never from within http_client_start(). */
typedef void (*http_done_fn)(void *ctx, struct http_reply *reply, const struct err *err);

/* Copies what it needs of `call`. Every call ends in one call of `done`, unless it is cancelled; *ret is gone then. */
int http_client_start(struct http_client *c, const struct http_call *call, http_done_fn done, void *ctx,
		      struct http_pending **ret, struct err *err) must_check;
/* `done` is not called. NULL is fine. */
void http_pending_cancel(struct http_pending *p);

/* From the loop; may call give and take of that call before it returns, never `done`. */
void http_pending_go_on(struct http_pending *p);

/* A connection that connect_only has made. Nothing blocks. */
enum { HTTP_AGAIN = 1, HTTP_CLOSED = 2 };
/* To be watched; where it is readable, read until HTTP_AGAIN: TLS may have read more than was asked for. */
int http_pending_fd(const struct http_pending *p);
int http_pending_send(struct http_pending *p, struct str bytes, size_t *ret_sent, struct err *err) must_check;
/* HTTP_CLOSED: the peer has said all. */
int http_pending_recv(struct http_pending *p, char *to, size_t cap, size_t *ret_got, struct err *err) must_check;
/* An answer outside 2xx, whose body is there, as the error that it says. */
int http_reply_error(struct http_reply *reply, const char *url, struct err *err) must_check;

/* Full jitter: evenly from 0 to min(max_ns, base_ns * 2^attempt); attempt counts from 0. */
int64_t http_backoff(unsigned attempt, int64_t base_ns, int64_t max_ns);
/* Whether trying again later can help: no answer, 429, 502, 503, 504. */
bool http_may_retry(const struct http_reply *reply);
/* base + path with exactly one '/' between them, whatever both look like. */
char *http_url(const char *base, const char *path) must_check;
/* "http+unix://%2Frun%2Fx.sock": the service behind a unix socket, as a base for http_url(). The caller frees. */
char *http_unix_url(const char *path) must_check;
/* An http or https URL with a host, or the above; `name` is the variable that the message blames. */
int http_url_check(const char *url, const char *name, struct err *err) must_check;
