/*
 * What a command that waited for a job says and exits with.
 */
#pragma once

#include "cli/follow.h"

/* The exit statuses that no error code gives. */
enum { EXIT_JOB_FAILED = 5, EXIT_INTERRUPTED = 130 };

/* All of them, for help and manuals. */
struct exit_code {
	int status;
	const char *meaning;
};
extern const struct exit_code exit_codes[];
extern const size_t exit_code_count;

/* A sentence on standard error where the job did not succeed; where `output` asks for JSON, the job on standard output
 * (NULL: never). Gives the exit status. */
int outcome(struct session *s, int64_t job_id, const struct follow_end *end, const struct output_flags *output,
	    struct err *err) must_check;
