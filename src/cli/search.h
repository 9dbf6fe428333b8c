/*
 * A search of the logs: lines that match, the newest first, of one job, one organisation, or all that the caller sees.
 */
#pragma once

#include <stdint.h>

#include "cli/session.h"

struct search_opts {
	int64_t job_id;	 /* 0: of every job */
	int64_t attempt; /* 0: of every one */
	int64_t org_id;	 /* 0: where the job lies; else every organisation that has had jobs lately */
	int64_t limit;
	const char *filter; /* further parameters, as the pipeline takes them: "&contains=x"; or NULL */
};

/* An array of lines. Says on standard error where the search was not whole. */
int search(struct session *s, const struct search_opts *opts, struct js **ret, struct err *err) must_check;
