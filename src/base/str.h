/*
 * A borrowed piece of text: pointer and length, not NUL-terminated. What parsers take and give.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"
#include "base/err.h"

struct str {
	const char *data;
	size_t len;
};

/* A string literal, or any C string whose length the compiler may count. */
#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
/* For printf: "%.*s", STR_ARG(s). */
#define STR_ARG(s) (int)((s).len > 4096 ? 4096 : (s).len), (s).data != NULL ? (s).data : ""

unused_fn static inline struct str str_c(const char *text)
{
	return (struct str){text, text != NULL ? strlen(text) : 0};
}

bool str_eq(struct str a, struct str b);
/* FNV-1a, for tables. */
uint32_t str_hash(struct str s);
bool str_starts_with(struct str s, struct str prefix);
bool str_ends_with(struct str s, struct str suffix);
/* Without ASCII white space at both ends. */
struct str str_trim(struct str s);
/* Cuts at the first `sep`: gives what stood before it, and moves *rest behind it. Where there is no `sep`, all is
 * given and *rest is empty with a NULL pointer, which is how a loop over pieces ends. */
struct str str_cut(struct str *rest, char sep);
/* Where the byte is, or -1. */
ptrdiff_t str_find(struct str s, char c);
/* Well-formed UTF-8 without NUL (RFC 3629: no surrogates, nothing over U+10FFFF, shortest form only). */
bool str_is_utf8(struct str s);
/* The length of the well-formed sequence that s begins with; 0 where there is none, or s is empty. */
size_t str_utf8_step(struct str s);

/* The whole of s as a decimal number from min to max; name is what the message calls it. */
int str_to_i64(struct str s, const char *name, int64_t min, int64_t max, int64_t *ret, struct err *err) must_check;
