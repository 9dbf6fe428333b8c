/*
 * The bodies of requests as they come in: kept in memory within a bound for all connections together, given to a sink,
 * or dropped where the request was refused. Knows no socket; what is to happen next is told to the caller.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "net/http_request.h"

struct http_bodies {
	int64_t timeout_ns;  /* how long a request may take to bring a body that is kept */
	int64_t drop_ns;     /* how long a refused body is taken */
	atomic_size_t bytes; /* kept now, of all connections together */
};

enum { HTTP_BODIES_MAX = 512 << 20 };

enum http_body_next {
	HTTP_BODY_ON,	  /* more of it */
	HTTP_BODY_DROP,	  /* refused; more of it, to be dropped, then req->failure is answered */
	HTTP_BODY_ANSWER, /* req->failure is answered now */
	HTTP_BODY_CUT,	  /* no answer: the connection ends */
};

/* What the headers say of its length, into req->body_length. */
int http_body_find_length(struct http_request *req, struct err *err) must_check;
/* The request is answered *err, as soon as its sender can see that. `begun`: its body has been taken from. */
enum http_body_next http_body_refuse(struct http_bodies *b, struct http_request *req, bool begun, const struct err *err)
	must_check;
enum http_body_next http_body_take(struct http_bodies *b, struct http_request *req, struct str bytes) must_check;
enum http_body_next http_body_drop(struct http_request *req, size_t size) must_check;
int http_body_too_large(const struct http_request *req, struct err *err) must_check;
/* The request is over: what it held is free for others. */
void http_body_release(struct http_bodies *b, const struct http_request *req);
