/*
 * A request and its answer as data: what handlers read and set. Knows nothing of sockets and threads; http_server.c
 * moves it. At any time one thread has it: the one that moves bytes, a worker, or nobody (it waits).
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "net/http_connection.h"
#include "net/http_forwarded.h"
#include "net/http_head.h"
#include "net/http_route.h"
#include "net/http_server.h"
#include "net/http_wait.h"

enum http_phase {
	HTTP_PHASE_NEW,	   /* its headers were not looked at */
	HTTP_PHASE_BODY,   /* its body is coming in */
	HTTP_PHASE_DROP,   /* refused; what still comes in is dropped before the answer */
	HTTP_PHASE_AWAY,   /* suspended: with a worker, or waiting */
	HTTP_PHASE_READY,  /* resumed: the answer is to be sent */
	HTTP_PHASE_SENDING /* the answer is libmicrohttpd's */
};

struct http_answer {
	int status; /* 0: none yet */
	const char *content_type;
	struct buf body;
	int fd; /* where the body is, if there is one: has_fd */
	int64_t fd_size;
	bool has_fd;
	struct http_param *headers;
	size_t header_count;
	size_t header_cap;
	bool streamed;
	struct http_stream stream;
	bool upgraded;
	struct http_upgrade upgrade;
};

struct http_request {
	struct http_server *server;
	void *connection;	      /* the library's */
	struct http_connection *link; /* NULL before its headers are there */
	int fd;
	int64_t begun_ns;

	pthread_mutex_t lock; /* guards phase, and with it who has the request: all else is of the one who has it */
	enum http_phase phase;

	struct arena *arena;
	const char *raw_target;
	const char *line_target; /* where it lies in the library's memory; for its address only */
	struct http_head head;	 /* borrows from there: only good while the headers are looked at */
	const char *method;
	char *id;
	struct http_target *target;
	struct http_match match;
	struct http_param *headers;
	size_t header_count;
	struct sockaddr_storage peer;
	const struct cidr_list *proxies;
	struct http_origin origin;
	void *claims;
	void *state;

	int64_t body_length; /* what Content-Length says; -1: chunked */
	size_t body_max;
	struct buf body;
	struct js *body_js;
	uint64_t received; /* bytes of the body that were taken */
	uint64_t dropped;  /* ... and that were not */
	void *sink_state;
	bool sink_begun;

	struct err failure; /* what a refused request is answered when its body is dropped */
	int64_t drop_deadline_ns;

	struct http_waiter waiter;
	bool parking; /* http_park() was called in this run */
	bool woken;
	bool over;
	bool gone;  /* hung up while it waited */
	bool close; /* no further request on this connection */

	struct http_answer answer;
	const char *hint;
	unsigned retry_after;
	http_answered_fn *done;
	void *done_arg;
	bool delivered;
	bool finished; /* only `done` is left to do */
};

struct http_request *http_request_new(struct http_server *server, const char *raw_target) must_check;
void http_request_free(struct http_request *req);
AUTOPTR_DEFINE(http_request)

void http_request_add_header(struct http_request *req, struct str name, struct str value);
/* The id, the target and who asks, once the headers are there. `proxies` may be NULL. */
int http_request_parse(struct http_request *req, const struct cidr_list *proxies, struct err *err) must_check;

/* The error as the answer, in place of any that was set. */
void http_answer_error(struct http_request *req, const struct err *err);
