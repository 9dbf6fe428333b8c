/*
 * The jobs that wait for room in their organisation's rate, oldest first, and when there is room for the next of each
 * organisation. Who is held and let in, admission.c decides, under the lock of the rate.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"

/* next_at counts where it is the organisation's first. */
int held_jobs_add(struct control_tx *t, int64_t org_id, int64_t job_id, int64_t next_at, struct err *err) must_check;
/* A parked job moves on, or is parked for something else: it waits for room no more. Fine for one that never did. */
int held_jobs_remove(struct control_tx *t, int64_t org_id, int64_t job_id, struct err *err) must_check;
/* 1: jobs of the organisation are held; *ret_next_at is when there is room for the next. */
int held_jobs_next(struct control_tx *t, int64_t org_id, int64_t *ret_next_at, struct err *err) must_check;
/* The oldest ones, at most `cap`. */
int held_jobs_first(struct control_tx *t, int64_t org_id, int64_t *ids, size_t cap, size_t *ret_count, struct err *err)
	must_check;
/* The next one is due at `next_at`; without any, nothing is. */
int held_jobs_put_off(struct control_tx *t, int64_t org_id, int64_t next_at, bool none_left, struct err *err)
	must_check;
/* 1: some organisation has room. The longest due comes first, so that each gets its turn. */
int held_jobs_due(struct sql_tx *tx, int64_t now, int64_t *ret_org_id, struct err *err) must_check;
