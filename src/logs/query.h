/*
 * Questions to the log store: which lines of an organisation, a job or an attempt have a text, in a span of time.
 *
 * Lines of one attempt come in the order of their numbers, and are paged through by cursor. Lines of several come by
 * time, as far as the clocks of the agents that stamped them agree.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "logs/store.h"
#include "proto/log_line.h"

enum {
	LOG_QUERY_LIMIT_MAX = 500,
	LOG_QUERY_BYTES_MAX = 16 * 1024 * 1024, /* of text; then fewer lines than `limit` come */
	LOG_QUERY_ANY_ATTEMPT = -1,
};

struct log_query {
	int64_t org_id;
	int64_t job_id;	  /* 0: all of the organisation's */
	int64_t attempt;  /* LOG_QUERY_ANY_ATTEMPT: all of the job's */
	int64_t repo_id;  /* 0: any */
	struct str text;  /* letters of ASCII in any case; empty: any */
	int64_t since_at; /* Unix ns: from here on ... */
	int64_t until_at; /* ... and before this; 0: no bound */
	int64_t cursor;	  /* of one attempt: only lines after (newest first: before) this number; 0: all */
	bool oldest_first;
	size_t limit;
	int64_t deadline_ns; /* monotonic */
};

struct log_result {
	struct log_line *lines;
	size_t count;
	size_t cap;
	size_t bytes;
};
void log_result_fini(struct log_result *r);
AUTOVAR_DEFINE(log_result)

/* ERR_TIMEOUT: the deadline passed. */
int log_query_run(struct log_store *s, const struct log_query *q, struct log_result *ret, struct err *err) must_check;

/* Whether `text` has `wanted` in it, whatever the case of ASCII letters. */
bool log_text_has(struct str text, struct str wanted) must_check;
