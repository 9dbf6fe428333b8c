/*
 * As much of DNS messages (RFC 1035) as it takes to bring a question that came by UDP to a resolver by TCP, and its
 * answer back: sizes, and an answer that is too long for its asker. Libc only; any bytes may come.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/str.h"

enum {
	DNS_TYPE_AAAA = 28,
	DNS_HEADER_SIZE = 12,
	DNS_QUERY_MAX = 4096,	 /* bytes of a question that is taken */
	DNS_PLAIN_MAX = 512,	 /* of an answer by UDP to one who says nothing */
	DNS_EXTENDED_MAX = 1232, /* to one who speaks EDNS: what fits any path */
};

/* A standard query with one question. */
bool dns_is_query(struct str message);
/* Whether the answer is one to this query: its number, and that it is an answer. */
bool dns_is_answer(struct str answer, struct str query);
/* The answer as it goes back by UDP: itself where it fits, else only its head and the question, marked as cut, so that
 * the asker comes by TCP. Both have passed the above. */
void dns_fit(struct str answer, struct str query, struct buf *out);
/* What its one question asks for: a number of RFC 1035, 3.2.2, as DNS_TYPE_AAAA. It has passed the above. */
unsigned dns_type(struct str query);
/* The answer that the name has nothing of that type (RFC 2308, 2.2). */
void dns_nothing(struct str query, struct buf *out);
