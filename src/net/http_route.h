/*
 * What the request line asks for: the target taken apart and matched against a table of routes. Pure: bytes in, structs
 * in the arena out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "net/http_server.h"

enum { HTTP_PARAMS_MAX = 4, HTTP_SEGMENTS_MAX = 16, HTTP_QUERY_MAX = 32 };

struct http_param {
	const char *name;
	const char *value;
};

/* Decoded: valid UTF-8 without NUL. */
struct http_target {
	const char *segments[HTTP_SEGMENTS_MAX];
	size_t segment_count;
	struct http_param query[HTTP_QUERY_MAX];
	size_t query_count;
};

/*
 * "/a//b%20c/?x=1&y" (origin form) or "http://host/a/b" (absolute form). Repeated slashes and one at the end count for
 * nothing. ERR_INVALID for a bad escape, a NUL, bytes that are not UTF-8, "." and ".." as segments.
 */
int http_target_parse(struct str raw, struct arena *arena, struct http_target *ret, struct err *err) must_check;

struct http_match {
	const struct http_route *route;
	struct {
		struct str name;
		const char *value;
	} params[HTTP_PARAMS_MAX];
	size_t param_count;
};

/*
 * The first route of the table that fits. ERR_NOT_FOUND; ERR_METHOD_NOT_ALLOWED where only the method is wrong, then
 * *allow lists those that would do ("GET, HEAD").
 */
int http_route_match(const struct http_route *routes, size_t count, const char *method,
		     const struct http_target *target, struct http_match *ret, struct buf *allow, struct err *err)
	must_check;

/* A client's request id is kept if it is 1 to 64 letters, digits and "._-". */
bool http_request_id_sane(struct str id);
/* What follows "Bearer " in any case, without white space; a NULL pointer where there is no such thing. */
struct str http_bearer_parse(struct str authorization);
