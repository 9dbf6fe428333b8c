/*
 * What holds of a job's files wherever they lie: what they are called, and how long they stay. Pure: the database says
 * what is known of a job, the control plane removes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/str.h"
#include "model/job_state.h"

enum job_file_kind { JOB_FILE_INPUT, JOB_FILE_OUTPUT, JOB_FILE_KINDS };

/* Which file of which job. */
struct job_file_place {
	int64_t job_id;
	enum job_file_kind kind;
	int64_t n;
};

/* "input", "output". */
const char *job_file_kind_text(enum job_file_kind kind);
bool job_file_kind_parse(struct str text, enum job_file_kind *ret);

enum { JOB_FILE_NAME_SIZE = 80 };
/* What its bytes are stored as: never the same twice, as long as `unique` is not. */
void job_file_name(const struct job_file_place *place, uint64_t unique, char ret[static JOB_FILE_NAME_SIZE]);
/* False: no file of a job is called so. */
bool job_file_name_parse(struct str name, struct job_file_place *ret);

/* A job that waits for its files does so no longer than this. */
#define JOB_FILES_WAIT_NS (INT64_C(3600) * NS_PER_S)

/* What is known of the job that a file is of. */
struct job_file_owner {
	bool known; /* there is such a job */
	enum job_state state;
	int64_t completed_at;
	bool again; /* a retry can run with its inputs: it spoke with no client */
};
/* How long they stay after their job's end: outputs so that they can be fetched, inputs for a retry. */
struct job_file_rule {
	int64_t keep_ns[JOB_FILE_KINDS];
};
/* Before the end none is over, and after it at once what nobody can ask for. */
bool job_file_over(enum job_file_kind kind, const struct job_file_owner *owner, const struct job_file_rule *rule,
		   int64_t now);
