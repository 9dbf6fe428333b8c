/*
 * A rate limit by the generic cell rate algorithm: `limit` permits per `interval_ns`, all of which may be taken at once
 * after a rest. What is kept of a key is one number, its theoretical arrival time (TAT). Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct gcra {
	int64_t limit;	     /* permits in an interval, and the largest burst; 0 or less: no limit */
	int64_t interval_ns; /* over 0 */
};

struct gcra_verdict {
	bool allowed;
	int64_t tat;	   /* to be kept; as it was when it is not allowed */
	int64_t wait_ns;   /* until retry_at; 0 when it is allowed */
	int64_t retry_at;  /* when the same call will be allowed; `now` when it is. INT64_MAX: never */
	int64_t remaining; /* permits left after this call; INT64_MAX without a limit */
};

/* `tat` is what was kept, 0 for a key that is new; times are Unix ns of one clock. `cost` is in permits, at least 1. */
struct gcra_verdict gcra_take(const struct gcra *g, int64_t tat, int64_t cost, int64_t now);
/* How long one permit takes to come back. */
int64_t gcra_step_ns(const struct gcra *g);
