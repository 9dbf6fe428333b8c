/*
 * Jobs: how they come to be, how they are found, cancelled and counted. Blocking: for workers.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "control/db/job_new.h"
#include "control/db/job_row.h"

enum {
	JOBS_DB_KNOWN = 1,   /* submit: the idempotency key was seen; the answer is that job */
	JOBS_DB_MISSING = 1, /* get, cancel, history: there is no such job */
	JOBS_DB_ENDED = 2,   /* cancel: it had ended before */
};

/* JOBS_DB_KNOWN where org and key have a job; ERR_CONFLICT if that one was asked for differently (secret values are not
 * compared). */
int jobs_db_submit(const struct control_db *db, const struct job_spec *spec, struct arena *arena, struct job *ret,
		   struct err *err) must_check;

/* Waiting jobs end at once; one that an agent has gets a command, and ends when the agent says so or loses its lease.
 * Doing it again is fine. JOBS_DB_MISSING, JOBS_DB_ENDED. */
int jobs_db_cancel(const struct control_db *db, int64_t id, struct arena *arena, struct job *ret, struct err *err)
	must_check;

/* By our id, or GitHub's (its last run attempt). JOBS_DB_MISSING. */
int jobs_db_get(const struct control_db *db, int64_t id, struct arena *arena, struct job *ret, struct err *err)
	must_check;

/* The file that the job's last attempt ran in, in hex, as its agent said; NULL: none did. */
int jobs_db_booted(const struct control_db *db, int64_t id, struct arena *arena, const char **ret, struct err *err)
	must_check;

/* All filters are SQL's; unset is 0 or NULL. */
struct jobs_filter {
	int64_t org_id;
	const char *agent_id;
	int64_t within_ns; /* changed so lately */
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
/* Of one organisation, or of all (0). */
int jobs_db_counts(const struct control_db *db, int64_t org_id, struct jobs_counts *ret, struct err *err) must_check;

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
