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
#include "model/job_file.h"

#define JOB_FILES_REASON "files"
#define JOB_FILES_MISSING_REASON "files_missing"

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
/* The job is parked until its files are there. */
bool job_files_wanted(const struct job *job);
/* JOB_FILES_NONE. */
int job_files_get(const struct control_db *db, int64_t job_id, enum job_file_kind kind, int64_t n, struct arena *arena,
		  struct job_file *ret, struct err *err) must_check;
/* Ends jobs whose files have not come for `age_ns`; at most a batch. */
int job_files_expire(const struct control_db *db, int64_t age_ns, int64_t *ret_count, struct err *err) must_check;

/* What is put in order at a time, and its blobs. */
enum { JOB_FILES_PAGE = 256 };
struct job_file_names {
	const char *items[JOB_FILES_PAGE];
	size_t count;
};
/* Forgets those of the next rows whose time is over (job_file_over()); their blobs may go then. `walk` is where it has
 * come to, zeros at first; at the end it begins anew. */
int job_files_forget(const struct control_db *db, const struct job_file_rule *rule, struct job_file_place *walk,
		     struct arena *arena, struct job_file_names *ret, struct err *err) must_check;
/* The same, of one job. */
int job_files_forget_of(const struct control_db *db, const struct job_file_rule *rule, int64_t job_id,
			struct arena *arena, struct job_file_names *ret, struct err *err) must_check;
/* Which of these blobs are files of jobs that no row names: nobody will ask for them. */
int job_files_unknown(const struct control_db *db, const struct job_file_names *names, struct job_file_names *ret,
		      struct err *err) must_check;

/* The job asks for these; `extras` of struct job, decoded. Zeros where it asks for nothing. */
struct job_extras;
int job_extras_of(const struct job *job, struct arena *arena, struct job_extras *ret, struct err *err) must_check;
