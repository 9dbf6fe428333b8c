/*
 * Rate limits in SQL, one row a key: what one control plane takes, all others see. The arithmetic is model/gcra.h's.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "model/gcra.h"

/* Takes `cost` permits of `key` if they are there: ret->allowed. The key's row is locked until the transaction ends, so
 * that whatever the verdict decides is decided by one transaction at a time. */
int rate_limit_take(struct sql_tx *tx, const char *key, int64_t limit, int64_t interval_ns, int64_t cost, int64_t now,
		    struct gcra_verdict *ret, struct err *err) must_check;
/* Only the lock. */
int rate_limit_lock(struct sql_tx *tx, const char *key, struct err *err) must_check;

/* The same in a transaction of its own, for calls that are nothing but counted. A refusal costs a read only. */
int rate_limit_pass(const struct control_db *db, const char *key, const struct gcra *limit, struct gcra_verdict *ret,
		    struct err *err) must_check;

/* Forgets keys that have had all their permits back for a while: a row that is absent says the same. Gives how many
 * there were. */
int rate_limit_prune(const struct control_db *db, int64_t *ret_count, struct err *err) must_check;
