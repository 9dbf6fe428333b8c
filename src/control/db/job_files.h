/*
 * The files of jobs: which of a job's inputs have come, and its outputs. The bytes are blobs (store/blobs.h); a row
 * here says which. A job with inputs is parked with the reason JOB_FILES_REASON until all of them are there.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "control/db/job_row.h"

#define JOB_FILES_REASON "files"
#define JOB_FILES_MISSING_REASON "files_missing"

enum job_file_kind { JOB_FILE_INPUT, JOB_FILE_OUTPUT };

struct job_file {
	int64_t job_id;
	enum job_file_kind kind;
	int64_t n;
	int64_t attempt; /* of an output: who sends it has this one */
	const char *blob;
	int64_t size;
	const char *sha256;
};

enum { JOB_FILES_NONE = 1 };

/* The blob is durable. An input: the last one lets the job in. *ret is the job then. ERR_NOT_FOUND, ERR_CONFLICT (too
 * late, or of an attempt that is over). `ret_replaced` is the blob that stood there before, or NULL. */
int job_files_add(const struct control_db *db, const struct job_file *file, struct arena *arena, struct job *ret,
		  const char **ret_replaced, struct err *err) must_check;
/* JOB_FILES_NONE. */
int job_files_get(const struct control_db *db, int64_t job_id, enum job_file_kind kind, int64_t n, struct arena *arena,
		  struct job_file *ret, struct err *err) must_check;
/* Ends jobs whose files have not come for `age_ns`; at most a batch. */
int job_files_expire(const struct control_db *db, int64_t age_ns, int64_t *ret_count, struct err *err) must_check;
/* Whether the blob of that name, of that job, may go: 1 or 0. Outputs stay for `keep_ns` after the job's end. */
int job_files_is_over(const struct control_db *db, int64_t job_id, enum job_file_kind kind, int64_t keep_ns,
		      struct err *err) must_check;
/* The job asks for these; `extras` of struct job, decoded. Zeros where it asks for nothing. */
struct job_extras;
int job_extras_of(const struct job *job, struct arena *arena, struct job_extras *ret, struct err *err) must_check;
