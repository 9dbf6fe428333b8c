/*
 * The head of a request that a job sends to a service through its shim: hostile bytes, taken apart strictly, and
 * written again with the job's token. What is not on the service's list of calls does not get through, nor does
 * anything that could be read in two ways, speaks of the connection, or claims to be somebody.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

enum { SERVICE_HEAD_MAX = 16 * 1024 };

/* A path stands for itself only; what follows a '?' is the request's. */
struct service_call {
	const char *method;
	const char *path;
};

struct service_target {
	const struct service_call *calls;
	size_t count;
	struct str host;	    /* of the Host header */
	struct str prefix;	    /* before the path; "" */
	const struct secret *token; /* NULL: none is added */
};

/* What a head says of what follows it. */
struct service_request {
	int64_t length; /* bytes of body */
	bool chunked;	/* they come in chunks, and length is not known */
	bool keep;	/* another request may follow on the connection */
};

enum { SERVICE_HEAD_PARTIAL = 1 };
/* Whether `bytes` begin with a whole head: 0, and *ret is its size, or SERVICE_HEAD_PARTIAL. ERR_HEADERS_TOO_LARGE;
 * ERR_INVALID where it will never be one. */
int service_head_size(struct str bytes, size_t *ret, struct err *err) must_check;
/* A whole head, of `size` bytes. Appends the head for the service, which holds the token: the caller
 * has made room (4 * SERVICE_HEAD_MAX), so that growing leaves no copy of it, and wipes it. */
int service_head_rewrite(const char *head, size_t size, const struct service_target *target, struct buf *out,
			 struct service_request *ret, struct err *err) must_check;
