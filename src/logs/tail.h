/*
 * Following one attempt: its lines from a cursor on, as text, for as long as there is something to come. Knows the
 * store, not HTTP.
 *
 * With a filter it is a search until it has reached the end of the log for the first time; as such it has a budget, and
 * ends early, and says so, when that is spent. From there on it looks at lines as they come.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "logs/filter.h"
#include "logs/query.h"
#include "logs/store.h"

struct tail_opts {
	struct segment_key key;
	int64_t cursor; /* the first line is the one after it */
	bool events;	/* server-sent events instead of NDJSON */
	bool follow;	/* false: ends with what there is */
	struct log_filter filter;
	struct log_budget budget; /* of the search; not looked at where the filter narrows nothing */
	/* Called once, where the filter narrows: the search is over, or the tail is freed. May be NULL. */
	void (*searched)(void *ctx, const struct segment_key *key, enum log_partial partial, uint64_t scanned);
	void *ctx;
};

struct tail;
/* The filter's text is copied. */
struct tail *tail_new(struct log_store *s, const struct tail_opts *opts) must_check;
void tail_free(struct tail *t);
AUTOPTR_DEFINE(tail)

enum { TAIL_END = 0, TAIL_WAIT = -1, TAIL_FAILED = -2 };
/* Up to `cap` bytes (> 0), or one of the above. When the attempt is sealed and all of its lines were given, or it is
 * not followed, the last thing given is {"end": COMPLETE, "last_seq": N}. With a filter, {"cursor": N} tells of lines
 * that were passed over. */
ptrdiff_t tail_read(struct tail *t, char *to, size_t cap) must_check;
/* A sign of life, which readers pass over: a comment, or an empty line. Only after TAIL_WAIT. */
ptrdiff_t tail_idle(struct tail *t, char *to, size_t cap) must_check;
