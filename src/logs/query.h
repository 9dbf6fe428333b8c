/*
 * Questions to the log store: which lines of an organisation, a job or an attempt pass a filter.
 *
 * Lines of one attempt come in the order of their numbers. Lines of several come by time, merged from all logs at once,
 * so that an answer is what a sort of everything would begin with, as far as the agents' clocks agree. Either order is
 * total, so every line is a position in it from which a later question goes on. A question that costs too much is
 * answered as far as it got.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "logs/filter.h"
#include "logs/store.h"
#include "proto/log_line.h"

enum {
	LOG_QUERY_LIMIT_MAX = 500,
	LOG_QUERY_BYTES_MAX = 16 * 1024 * 1024, /* of text; then fewer lines than `limit` come */
	LOG_QUERY_ANY_ATTEMPT = -1,
};

/* What a search may cost. */
struct log_budget {
	int64_t deadline_ns; /* monotonic */
	uint64_t bytes;	     /* of unpacked log that may still be read */
};

/* Why a search stopped before its end. */
enum log_partial { LOG_WHOLE, LOG_PARTIAL_TIME, LOG_PARTIAL_SCANNED };
/* "time", "scanned"; NULL for LOG_WHOLE. */
const char *log_partial_name(enum log_partial p);
void log_budget_take(struct log_budget *b, uint64_t bytes);
enum log_partial log_budget_state(const struct log_budget *b) must_check;

/* A place in the order of an answer, where a line is or may be. */
struct log_position {
	int64_t at; /* 0, as job_id and attempt, where the lines are of one attempt */
	int64_t job_id;
	int64_t attempt;
	int64_t seq;
};

struct log_query {
	int64_t org_id;
	int64_t job_id;	 /* 0: all of the organisation's */
	int64_t attempt; /* LOG_QUERY_ANY_ATTEMPT: all of the job's */
	struct log_filter filter;
	bool resumed; /* only lines behind `after`, in the order of the answer */
	struct log_position after;
	bool oldest_first;
	size_t limit;
	struct log_budget budget;
};

struct log_result {
	struct log_line *lines;
	size_t count;
	size_t cap;
	size_t bytes;
	bool more;		  /* there may be lines behind these ... */
	struct log_position next; /* ... which come with this as `after` */
	enum log_partial partial;
	uint64_t scanned;
};
void log_result_fini(struct log_result *r);
AUTOVAR_DEFINE(log_result)

/* ERR_LIMIT: not even one step is possible within the budget. */
int log_query_run(struct log_store *s, const struct log_query *q, struct log_result *ret, struct err *err) must_check;

/* The seq after which the last `count` lines of one attempt stand that pass; what it costs goes off the budget. It
 * begins at the end of the log. LOG_PARTIAL_*: it could not look further back. */
int log_query_last(struct log_store *s, const struct segment_key *key, const struct log_filter *filter, int64_t count,
		   struct log_budget *budget, int64_t *ret_seq, enum log_partial *ret_partial, struct err *err)
	must_check;

/* A position as a client carries it: a seq for lines of one attempt, else "AT.JOB.ATTEMPT.SEQ". */
void log_cursor_write(const struct log_position *p, bool one_attempt, struct buf *out);
int log_cursor_parse(struct str text, bool one_attempt, struct log_position *ret, struct err *err) must_check;
