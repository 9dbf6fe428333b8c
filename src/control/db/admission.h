/*
 * Who may enter the queue: an organisation's rate of new jobs. A job over it is parked with the reason ADMISSION_REASON
 * and let in, oldest first, when there is room; nobody of its organisation overtakes it. All that is decided for one
 * organisation is decided under the lock of its row in rate_limit.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "control/db/job_row.h"

#define ADMISSION_REASON "org_rate_limit"

enum { ADMISSION_HELD = 1 };

/* A job that is about to be queued for the first time. ADMISSION_HELD: it is to be parked, and stands among those that
 * wait for room. */
int admission_ask(struct control_tx *t, int64_t org_id, int64_t job_id, struct err *err) must_check;

/* Queues held jobs as far as there is room, at most a batch of one organisation. Gives how many; any number of callers
 * at any time. An idle call costs a read. */
int admission_let_in(const struct control_db *db, int64_t *ret_count, struct err *err) must_check;

struct admission_forecast {
	int64_t ahead;	 /* jobs of the organisation that are let in before it */
	int64_t room_at; /* when its turn is expected, Unix ns */
};
/* 1: the job is held; 0: it is not. */
int admission_foresee(const struct control_db *db, const struct job *job, struct admission_forecast *ret,
		      struct err *err) must_check;
/* How many are held, of all organisations. */
int admission_count(const struct control_db *db, int64_t *ret, struct err *err) must_check;
