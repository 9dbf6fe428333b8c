/*
 * Retries: a new job that asks for what an ended one asked for, and knows which one that was.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "control/db/db.h"
#include "control/db/job_row.h"

enum {
	JOB_RETRY_KNOWN = 1,   /* the idempotency key was seen; the answer is that job */
	JOB_RETRY_MISSING = 2, /* there is no such job */
};

struct job_retry {
	int64_t id;			 /* of the job that has ended */
	const struct secret *secret_env; /* as job_spec's: what the job had was erased when it ended */
	const char *idempotency_key;	 /* NULL: none */
	bool has_inputs;		 /* those of the job are there to be added (job_files_add()) */
	bool newest_image;		 /* what the image's name stands for now, not the file that ran the job */
};
/* A job with inputs waits for them. ERR_CONFLICT where the job has not ended, is GitHub's, spoke with a client, or had
 * secrets or inputs and none are given. JOB_RETRY_KNOWN,
 * JOB_RETRY_MISSING. */
int job_retry(const struct control_db *db, const struct job_retry *retry, struct arena *arena, struct job *ret,
	      struct err *err) must_check;

/* What a job is a retry of, and the newest retry of it; 0: none. */
struct job_links {
	int64_t retry_of;
	int64_t retried_as;
};
int job_links_read(const struct control_db *db, int64_t id, struct job_links *ret, struct err *err) must_check;
