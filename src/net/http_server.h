/*
 * The HTTP/1.1 server of every role: libmicrohttpd behind a table of routes.
 *
 * libmicrohttpd's threads (epoll, one per core) parse and move bytes. A route says how its handler runs: inline in
 * such a thread (it may not wait), on a worker (blocking straight-line code; the connection sleeps meanwhile), or as a
 * sink that takes a body as it arrives. A handler that has nothing to answer yet parks the request: it then holds a
 * record, no thread, and runs again from its start when http_wait_wake() picks it or its time is over.
 *
 *	static const struct http_route routes[] = {
 *		{"GET", "/healthz", HTTP_INLINE, .handle = healthz},
 *		{"POST", "/api/jobs/{id}/cancel", HTTP_WORKER, .access = ADMIN, .handle = cancel_job},
 *	};
 *
 * Every answer carries X-Request-Id; every request gives one line in the log. Errors are
 * {"detail", "code", "hint", "request_id"}.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/str.h"
#include "net/cidr.h"
#include "net/http_connection.h"
#include "net/http_wait.h"

struct http_server;
struct http_request;
struct tls;

/* --- routes --- */

enum http_run {
	HTTP_INLINE, /* in the thread that moves bytes: answers from memory or a local indexed read, never waits */
	HTTP_WORKER, /* on the pool, when the whole body is there: may block and may park */
	HTTP_SINK,   /* begin and chunk in the thread that moves bytes, end on the pool */
};

enum { HTTP_PARKED = 1 };

/* 0: a reply was set. HTTP_PARKED: http_park() was called last. Negative: answered with *err. */
typedef int http_handle_fn(void *ctx, struct http_request *req, struct err *err);

/* A body taken in pieces. After a negative return the rest of the body is dropped and *err answered. */
struct http_sink {
	/* *ret_state is what the others get, and what free releases in any case once begin gave 0. */
	int (*begin)(void *ctx, struct http_request *req, void **ret_state, struct err *err);
	int (*chunk)(void *state, struct str bytes, struct err *err);
	/* All bytes were taken: as http_handle_fn, on a worker; may not park. */
	int (*end)(void *state, struct http_request *req, struct err *err);
	void (*free)(void *state);
};

struct http_route {
	const char *method;  /* GET routes answer HEAD too */
	const char *pattern; /* "/api/jobs/{id}": a name in braces takes one whole segment */
	enum http_run run;
	unsigned access;	      /* the role's own meaning, for authorize */
	size_t body_max;	      /* bytes; 0: 1 MiB. A body over it is dropped and answered 413 */
	http_handle_fn *handle;	      /* inline, worker */
	const struct http_sink *sink; /* sink */
	bool probe;		      /* asked every few seconds for ever: its requests are debug lines of the log */
};

/* --- the server --- */

struct http_server_opts {
	const char *const *addresses; /* numeric, IPv4 or IPv6, or "unix:/path"; none: 127.0.0.1 */
	size_t address_count;
	uint16_t port;	       /* of all TCP addresses; 0: a free one */
	const int *listen_fds; /* net/listen.h: inherited; instead of addresses and port where there are any; taken */
	size_t listen_fd_count;
	const struct http_route *routes;
	size_t route_count;
	void *ctx; /* given to every callback of the role */
	/* Asked before the body is read, in the thread that moves bytes: it may not wait. NULL: all may come in. */
	int (*authorize)(void *ctx, struct http_request *req, const struct http_route *route, struct err *err);
	/* Told of every finished request (route NULL: none matched); for metrics. May be NULL. */
	void (*observe)(void *ctx, const struct http_route *route, int status, int64_t duration_ns);
	unsigned io_threads; /* 0: one per core */
	unsigned workers;    /* 0: 64; they mostly wait for the disk, and those that wait together share a commit */
	size_t queue_max;    /* requests waiting for a worker, beyond which new ones get 503; 0: 1,024 */
	unsigned connections_max;	  /* 0: 12,000; fewer where the limit of open files is lower */
	unsigned connections_per_address; /* 0: no limit */
	struct tls *tls;		  /* TCP addresses speak TLS with it; NULL: they do not */
	const struct cidr_list *proxies;  /* whose X-Forwarded headers count; NULL: nobody's */
	int64_t idle_timeout_ns;	  /* a connection on which nothing moves; 0: 60 s */
	int64_t body_timeout_ns; /* how long a request may take to bring a body that is kept in memory; 0: 60 s */
	int64_t slow_timeout_ns; /* how long a request may come in below 1 KB/s; 0: 15 s */
	int64_t drop_timeout_ns; /* how long a refused body is taken so that its sender sees the answer; 0: 5 s */
	unsigned upgrades_max;	 /* connections that were upgraded, beyond which further ones get 503; 0: 1,024 */
};

/* The options, and the routes in them, must outlive the server. */
struct http_server *http_server_new(const struct http_server_opts *opts) must_check;
/* Binds and serves. A port in use is an error that says by whom, as far as /proc tells. */
int http_server_start(struct http_server *s, struct err *err) must_check;
uint16_t http_server_port(const struct http_server *s);
/*
 * Takes no new connection; ends waits (as if their time were over) and streams (after what they have); lets requests
 * finish, and upgraded connections be, until deadline_ns (monotonic), then cuts them, and waits until whoever has an
 * upgraded one has closed it. When it returns no callback of the role runs any more.
 */
void http_server_stop(struct http_server *s, int64_t deadline_ns);
/* For /readyz: http_server_stop() was called. */
bool http_server_stopping(const struct http_server *s);
/* Stopped before, or never started. Its wait lists are freed before it. */
void http_server_free(struct http_server *s);
AUTOPTR_DEFINE(http_server)

struct http_server_counts {
	size_t active;	/* requests begun and not finished, the waiting ones among them */
	size_t waiting; /* parked requests and sleeping streams */
	size_t queued;	/* waiting for a worker */
	size_t queued_max;
	size_t body_bytes; /* of bodies in memory */
	size_t upgraded;   /* connections that are no more HTTP's */
	size_t upgraded_max;
	struct http_connection_counts connections;
};
struct http_server_counts http_server_counts(struct http_server *s);

/* --- the request: what it asks --- */

/* Everything borrowed from a request lives until it is finished. */
struct arena *http_arena(struct http_request *req);
const char *http_request_id(const struct http_request *req);
const struct http_route *http_request_route(const struct http_request *req);
/* The decoded segment; never NULL for a name of the route's pattern. */
const char *http_path_param(const struct http_request *req, const char *name);
/* NULL where it is absent; the first where it is doubled; "" for ?name and ?name= */
const char *http_query(const struct http_request *req, const char *name);
/* *ret keeps its value where the parameter is absent. ERR_INVALID_FIELD. */
int http_query_i64(const struct http_request *req, const char *name, int64_t min, int64_t max, int64_t *ret,
		   struct err *err) must_check;
/* Of any case; NULL where it is absent. */
const char *http_header(const struct http_request *req, const char *name);
/* What follows "Bearer " (in any case) in Authorization; a NULL pointer where there is none. Say at the call where it
 * goes. */
struct str http_bearer(const struct http_request *req);
/* Empty for sinks. */
struct str http_body(const struct http_request *req);
/* The body as JSON; ERR_INVALID. The request owns the tree; a second call, also after a park, gives the same. */
int http_body_js(struct http_request *req, const struct js **ret, struct err *err) must_check;
/* ... decoded by a shape into *ret. */
int http_body_decode(struct http_request *req, const struct js_shape *shape, void *ret, struct err *err) must_check;
/*
 * Who asks: the peer, or the client that a trusted proxy names. The numeric address; "unix" for a peer over a unix
 * socket of whom no proxy says more.
 */
const char *http_remote_addr(const struct http_request *req);
/* NULL where it is "unix". */
const struct address *http_remote(const struct http_request *req);
/* How it asks: "https" or "http", of the client that a trusted proxy names. */
const char *http_scheme(const struct http_request *req);
/* HTTPS, or over a unix socket, and then not through a proxy: nobody on a network could read it. */
bool http_is_confidential(const struct http_request *req);
/* http_remote_addr() is this machine, and nobody says that it speaks for somebody else but trusted proxies. A unix
 * socket's peer is not: a proxy may be behind it. */
bool http_remote_is_loopback(const struct http_request *req);
/* It carries X-Forwarded-For or -Proto, though no proxy is trusted. */
bool http_has_stray_forwarding(const struct http_request *req);
/* What authorize found; the server only carries it. */
void http_set_claims(struct http_request *req, void *claims);
void *http_claims(const struct http_request *req);
/* The same for a handler's own state, kept when it is parked and runs again. */
void http_set_state(struct http_request *req, void *state);
void *http_state(const struct http_request *req);

/* --- the request: what it gets; all return 0, so that `return http_reply_...` ends a handler --- */

/* Takes `body`. */
int http_reply_js(struct http_request *req, int status, struct js *body) must_check;
/* By a shape. */
int http_reply_shape(struct http_request *req, int status, const struct js_shape *shape, const void *from) must_check;
/* text/plain; copied. */
int http_reply_text(struct http_request *req, int status, const char *text) must_check;
/* Copied. */
int http_reply_bytes(struct http_request *req, int status, const char *content_type, struct str bytes) must_check;
/* Takes the bytes, leaves *body empty. */
int http_reply_buf(struct http_request *req, int status, const char *content_type, struct buf *body) must_check;
int http_reply_empty(struct http_request *req, int status) must_check;
/* `size` bytes from the start of the file, by sendfile where there is no TLS. Takes the descriptor. */
int http_reply_fd(struct http_request *req, int status, const char *content_type, int fd, int64_t size) must_check;
/* The JSON body `null`. */
int http_reply_null(struct http_request *req, int status) must_check;
/* Added to whatever the answer will be, errors too; copied. */
void http_reply_header(struct http_request *req, const char *name, const char *value);
/* Instead of the hint that the error code has; copied. */
void http_hint(struct http_request *req, const char *hint);
/* Retry-After of a 429 or 503; without it, 1 second. */
void http_retry_after(struct http_request *req, unsigned seconds);

/*
 * Called once, on a worker, when the answer was written to the socket (true), or could not be (false): the client was
 * gone, the write failed, the server was cut. So it may block; req is still whole. The last one set counts.
 */
typedef void http_answered_fn(void *ctx, struct http_request *req, void *arg, bool delivered);
void http_on_done(struct http_request *req, http_answered_fn *fn, void *arg);

/* --- waits --- */

/* May be made before the server starts. What wakes its waiters: net/http_wait.h. */
struct http_wait_list *http_wait_list_new(struct http_server *s) must_check;

/*
 * Ends this run of a worker's handler: `return http_park(...)`. The handler runs again from its start. No wake-up is
 * lost between what the handler looked at and this call: when the list was woken since the handler began, it runs again
 * at once. A client that hangs up meanwhile ends the request. `tag` (in the request's arena) is for match functions.
 */
int http_park(struct http_request *req, struct http_wait_list *list, int64_t deadline_ns, const void *tag) must_check;
/* This run is the last: the deadline passed, or the server stops. Answer now, without asking the database again. */
bool http_wait_over(const struct http_request *req);
/* This run was picked by a wake-up. */
bool http_wait_woken(const struct http_request *req);

/* --- streamed replies --- */

enum {
	HTTP_STREAM_END = 0,
	HTTP_STREAM_WAIT = -1,	/* nothing now: asked again when the list is woken, or after idle_ns */
	HTTP_STREAM_ABORT = -2, /* the connection is cut, so that the client sees that it is not the whole */
};

struct http_stream {
	const char *content_type;
	/* Bytes put into buf (> 0), or one of the above. `idle`: idle_ns passed, time for a sign of life. In the
	 * thread that moves bytes. */
	ptrdiff_t (*read)(void *state, char *buf, size_t cap, bool idle);
	void (*free)(void *state);
	void *state;		     /* from here on the server's, also when the client is gone before the first byte */
	struct http_wait_list *list; /* NULL: read never waits */
	const void *tag;
	int64_t idle_ns; /* 0: 15 s */
};
int http_reply_stream(struct http_request *req, int status, const struct http_stream *stream) must_check;

/* --- upgrades: a connection that stops being HTTP's --- */

/* One that was handed over. Its request, and the server, live until it is closed. */
struct http_upgraded;

struct http_upgrade {
	const char *protocol; /* what the client must name in Upgrade */
	/*
	 * The answer was sent, and the connection is the callee's. `fd` is for waiting only: bytes go by
	 * http_upgraded_recv() and _send(). In the thread that moves bytes: it may not wait. The peer's death is seen
	 * after a minute; else nothing ends the connection but its owner.
	 */
	void (*start)(void *state, struct http_upgraded *u, int fd);
	/* In place of start, where the client was gone before it. */
	void (*cancel)(void *state);
	void *state;
};
/* ERR_INVALID where the client did not ask for this protocol (426 would be another's word for it), ERR_UNAVAILABLE
 * where there are too many. For inline and worker routes, whose requests have no body. */
int http_reply_upgrade(struct http_request *req, const struct http_upgrade *upgrade, struct err *err) must_check;
/* As recv() and send() without blocking: -1 with errno EAGAIN, or another where it broke. At least 16 KiB of room to
 * receive, or TLS may keep bytes back of which the descriptor says nothing. */
ssize_t http_upgraded_recv(struct http_upgraded *u, void *to, size_t cap);
ssize_t http_upgraded_send(struct http_upgraded *u, const void *from, size_t len);
/* The peer sees that nothing more comes. */
void http_upgraded_end(struct http_upgraded *u);
/* Once; from any thread. The descriptor is not the caller's any more. */
void http_upgraded_close(struct http_upgraded *u);
