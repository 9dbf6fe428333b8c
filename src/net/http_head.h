/*
 * Whether the bytes of a request's head are what they seem. The library that takes them apart is lenient: it takes
 * lines that end in LF alone, joins folded lines, ends a line at a NUL. A proxy before us may have read the same bytes
 * in another way, and then tells one request where we tell two. So the pieces that it gives are laid side by side
 * again: with nothing but one space, ": " or CR LF between them, they were written as RFC 9112 says.
 *
 * Only addresses are compared, and only the white space after a colon is read; the pieces lie in one buffer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct http_head {
	const char *begin;
	const char *at;	  /* where the next line must begin */
	const char *odd;  /* what is wrong, the first of it; or NULL */
	unsigned minor;	  /* of HTTP/1.x */
	unsigned hosts;	  /* how many */
	unsigned lengths; /* Content-Length */
	unsigned codings; /* Transfer-Encoding */
	struct str host;
	struct str length;
	struct str coding;
};

/* The request line; each piece ends in a NUL that stands where its separator stood. `target` is a copy of what stood at
 * `target_at`, before the library took that apart. */
void http_head_line(struct http_head *h, const char *method, const char *target_at, struct str target,
		    const char *version);
/* In their order. */
void http_head_field(struct http_head *h, struct str name, struct str value);
/* `size` is the whole head's, its empty line too. ERR_INVALID: it is odd, or tells in two ways (or in none that we
 * know) where its body ends or which host it means. Where this fails, nothing more can be read from the connection. */
int http_head_check(struct http_head *h, size_t size, struct str target, struct err *err) must_check;
