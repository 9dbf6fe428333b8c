/*
 * The arithmetic of a lease. Times are monotonic. A renewal counts from the moment before it was sent: the control
 * plane cannot have counted from an earlier one, so that our deadline is never later than its. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct lease {
	int64_t fence;
	int64_t ttl_ns;
	int64_t deadline_ns; /* from here on the job may be another agent's */
	unsigned failures;   /* renewals in a row that brought no answer */
};

/* The lease of a former agent's job: its length is not known, so what is left counts as all of it. */
struct lease lease_adopted(int64_t fence, int64_t deadline_ns, int64_t now_ns) must_check;
/* A later answer to an earlier request does not shorten it. */
void lease_renewed(struct lease *l, int64_t sent_ns, int64_t ttl_ns);
/* When to renew after a success: a third of its life from when the last renewal was sent. */
int64_t lease_next_renewal(const struct lease *l, int64_t sent_ns) must_check;
/* When to try again after a failure, which this counts: soon, with jitter, at least four more times before the end. */
int64_t lease_next_try(struct lease *l, int64_t now_ns) must_check;
bool lease_over(const struct lease *l, int64_t now_ns);
