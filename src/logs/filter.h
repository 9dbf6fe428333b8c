/*
 * What a reader asks of a line.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "logs/needle.h"
#include "proto/log_line.h"

struct log_filter {
	int64_t since_at;	   /* Unix ns: from here on ... */
	int64_t until_at;	   /* ... and before this */
	int64_t repo_id;	   /* 0: any */
	enum log_line_level level; /* this one and above */
	bool errors;		   /* levels from error on, and lines that say so themselves */
	bool annotations; /* errors, warnings and notices that the job announced as such (proto/log_command.h) */
	struct needle text;
};

#define LOG_FILTER_ALL ((struct log_filter){.since_at = INT64_MIN, .until_at = INT64_MAX})

/* Whether there may be a line that it does not let through. */
bool log_filter_narrows(const struct log_filter *f) must_check;
bool log_filter_passes(const struct log_filter *f, const struct log_line *line) must_check;
