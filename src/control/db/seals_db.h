/*
 * Log attempts that the logging pipeline must be told to seal: an outbox. A row is written in the transaction that ends
 * the attempt, and goes when the pipeline has answered.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"

struct seal {
	int64_t job_id;
	int64_t attempt;
	int64_t org_id;
	int64_t last_seq; /* -1: not known, so whatever has come is all; 0: there are no lines */
	int64_t tries;
};

/* Up to `limit` that are due, oldest first: those that this control plane's own writes left, and those that another one
 * has left standing. Sealing is idempotent, so two takers do no harm. */
int seals_db_take(const struct control_db *db, int64_t limit, struct arena *arena, struct seal **ret, size_t *ret_count,
		  struct err *err) must_check;
int seals_db_done(const struct control_db *db, const struct seal *seal, struct err *err) must_check;
/* Due again after a pause that grows to a minute. Never given up. */
int seals_db_retry(const struct control_db *db, const struct seal *seal, const char *why, struct err *err) must_check;
int seals_db_count(const struct control_db *db, int64_t *ret, struct err *err) must_check;

/* Inside the transaction that ends the attempt. Once per attempt: the first word holds. */
int seal_add(struct control_tx *t, int64_t job_id, int64_t attempt, int64_t org_id, int64_t last_seq, struct err *err)
	must_check;
