/*
 * Retention: how long, and how much, an organisation's logs are kept. A thread of its own looks at all logs now and
 * then and drops the oldest whole attempts, those that were written to longest ago first; never one that may still be
 * sent lines. Settings have the default; an organisation may have its own, in a small file beside the logs that the API
 * writes. Safe in threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "logs/store.h"

enum { RETENTION_DAYS_MAX = 36500 }; /* a century; as nanoseconds a number of 64 bits */

struct retention_limits {
	int64_t days;  /* since the last line; 0: for ever */
	int64_t bytes; /* of packed log; 0: without bound */
};

struct retention_dropped {
	size_t attempts;
	uint64_t bytes;
};

struct retention_opts {
	struct log_store *store; /* borrowed */
	const char *path;	 /* of the file with the exceptions; copied */
	struct retention_limits fallback;
	int64_t interval_ns;
	int64_t (*now)(void); /* NULL: clock_unix_ns() */
	/* What a sweep dropped of one organisation; from the thread. May be NULL. */
	void (*dropped)(void *ctx, int64_t org_id, const struct retention_dropped *dropped);
	void *ctx;
};

struct retention;
/* Reads the file; a damaged one is an error, because what it protected would be deleted. Starts the thread. */
int retention_new(const struct retention_opts *opts, struct retention **ret, struct err *err) must_check;
/* Before the store is closed. */
void retention_free(struct retention *r);
AUTOPTR_DEFINE(retention)

/* *ret_own: it has limits of its own. */
struct retention_limits retention_get(struct retention *r, int64_t org_id, bool *ret_own);
/* Durable when it returns. NULL: the default again. */
int retention_set(struct retention *r, int64_t org_id, const struct retention_limits *limits, struct err *err)
	must_check;

/* One pass over one organisation; what the thread does for each. */
int retention_sweep(struct retention *r, int64_t org_id, struct retention_dropped *ret, struct err *err) must_check;
