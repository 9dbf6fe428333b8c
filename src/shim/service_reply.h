/*
 * What a service answers to a job's request: passed on as it is, and looked at only for where it ends (RFC 9112, 6.3),
 * so that another request may follow on the connection. It is the operator's own service, but what it says may be a
 * job's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "shim/service_chunks.h"

enum { SERVICE_REPLY_HEAD_MAX = 64 * 1024 };

enum service_reply_at {
	SERVICE_REPLY_HEAD,
	SERVICE_REPLY_LENGTH, /* so many bytes */
	SERVICE_REPLY_CHUNKS,
	SERVICE_REPLY_OPEN, /* until the connection is closed */
	SERVICE_REPLY_OVER,
};

/* All zeros is one of which nothing has come. */
struct service_reply {
	enum service_reply_at at;
	struct buf head; /* what has come of it */
	int64_t left;
	struct service_chunks chunks;
	bool keep; /* once it is over: the connection may carry another */
};

void service_reply_fini(struct service_reply *r);
AUTOVAR_DEFINE(service_reply)
/* *ret_used of the bytes are of this answer: all, or up to its end. ERR_UNAVAILABLE: it is none. */
int service_reply_take(struct service_reply *r, struct str bytes, size_t *ret_used, struct err *err) must_check;
