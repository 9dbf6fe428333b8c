/*
 * Who asks, when a proxy asks for somebody: X-Forwarded-For and X-Forwarded-Proto, believed only from peers that are
 * configured as proxies. Pure.
 *
 * Each proxy appends whom it speaks for, so the list is read from its end: the first address that is not a proxy of
 * ours is the client. What stands before it was said by that client, and counts for nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "net/cidr.h"

struct http_origin {
	struct address address;
	bool unix_peer; /* nobody said more than that it came over a unix socket; `address` says nothing */
	bool https;
};

struct http_forwarded {
	const char *const *for_lines; /* the values of every X-Forwarded-For, in their order */
	size_t for_count;
	const char *const *proto_lines;
	size_t proto_count;
};

/* `origin` says who the peer is, and then who asks. A peer that is no proxy changes nothing. ERR_INVALID: a proxy sent
 * what cannot be read. */
int http_forwarded_resolve(const struct http_forwarded *f, const struct cidr_list *proxies, struct http_origin *origin,
			   struct err *err) must_check;
/* Whether such a peer is a proxy of ours. */
bool http_origin_is_proxy(const struct http_origin *origin, const struct cidr_list *proxies);
