/*
 * Jobs: how they come to be, how they are found, cancelled and counted. Blocking: for workers.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/secret.h"
#include "control/db/db.h"
#include "control/db/job_row.h"
#include "model/labels.h"
#include "proto/github_webhook.h"

enum {
	JOBS_DB_KNOWN = 1,   /* submit: the idempotency key was seen; the answer is that job */
	JOBS_DB_MISSING = 1, /* get, cancel, history: there is no such job */
	JOBS_DB_ENDED = 2,   /* cancel: it had ended before */
	JOBS_DB_STALE = 1,   /* github: the event told nothing new */
};

/* Checked by the caller (names, limits, whether the image exists); argv is not empty. */
struct job_spec {
	int64_t org_id;
	const char *name; /* NULL: none */
	const char *image;
	struct js_texts argv;
	struct js_pairs env;
	const struct secret *secret_env; /* a JSON object of strings; NULL: none. Sealed before it is stored. */
	struct label_set labels;
	const char *executor; /* NULL: "firecracker" */
	int64_t vcpus;
	int64_t memory_mb;
	int64_t disk_mb;
	int64_t timeout_s;
	int64_t max_attempts;
	const char *idempotency_key; /* NULL: none. Per org. */
	struct js_pairs metadata;
};

/* JOBS_DB_KNOWN where org and key have a job; ERR_CONFLICT if that one was asked for differently (secret values are not
 * compared). */
int jobs_db_submit(const struct control_db *db, const struct job_spec *spec, struct arena *arena, struct job *ret,
		   struct err *err) must_check;

/*
 * Folds one workflow_job event in, whatever came before it: creates the job when it is new, then moves it forward only.
 * `run_as` is what the job becomes here: its org, labels and limits, and what runs in a dry run; where `leasable` is
 * false it is parked with the reason github_app_not_configured. A job that GitHub gave to another runner is parked with
 * github_in_progress; one that ended there ends here, or is cancelled if it runs. The delivery, when not NULL, is
 * marked in the same transaction.
 */
struct github_fold {
	const struct github_workflow_job *event;
	const struct job_spec *run_as;
	bool leasable;
	const char *delivery_id;
};
int jobs_db_github(const struct control_db *db, const struct github_fold *fold, struct arena *arena, struct job *ret,
		   struct err *err) must_check;

/* Waiting jobs end at once; one that an agent has gets a command, and ends when the agent says so or loses its lease.
 * Doing it again is fine. JOBS_DB_MISSING, JOBS_DB_ENDED. */
int jobs_db_cancel(const struct control_db *db, int64_t id, struct arena *arena, struct job *ret, struct err *err)
	must_check;

/* By our id, or GitHub's (its last run attempt). JOBS_DB_MISSING. */
int jobs_db_get(const struct control_db *db, int64_t id, struct arena *arena, struct job *ret, struct err *err)
	must_check;

/* All filters are SQL's; unset is 0 or NULL. */
struct jobs_filter {
	int64_t org_id;
	const char *state;
	const char *label; /* exactly, in lower case */
	const char *meta_key;
	const char *meta_value; /* without meta_key: of any key */
	int64_t limit;		/* at least 1 */
};
/* Last changed first. */
int jobs_db_recent(const struct control_db *db, const struct jobs_filter *filter, struct arena *arena, struct job **ret,
		   size_t *ret_count, struct err *err) must_check;

struct jobs_counts {
	int64_t queue_length; /* ready to be leased */
	int64_t by_state[JOB_STATE_COUNT];
	int64_t oldest_queued_at; /* 0: the queue is empty */
};
int jobs_db_counts(const struct control_db *db, struct jobs_counts *ret, struct err *err) must_check;

struct job_history {
	int64_t at;
	const char *from; /* NULL: it was created */
	const char *to;
	int64_t attempt;
	int64_t fence;
	const char *agent_id;
	const char *reason;
};
/* Oldest first. */
int jobs_db_history(const struct control_db *db, int64_t id, struct arena *arena, struct job_history **ret,
		    size_t *ret_count, struct err *err) must_check;
