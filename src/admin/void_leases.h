/*
 * What a restored database must not share with the system that it was taken from. Leases are over; the fences of jobs
 * and all ids go up by more than that system can have given out since, so that none comes twice; tokens of agents made
 * there are void; and lines of attempts that the database has not begun are dropped.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "store/sql.h"

struct voided {
	int64_t generation; /* how often this database has been restored */
	int64_t leases;
	int64_t agents;	    /* that need a new token */
	int64_t secret_env; /* jobs that wait with secret environment */
	int64_t attempts;   /* whose lines were dropped */
};

/* segments_fd: LOGS/segments; -1: there are no logs here. No role runs on either. */
int void_leases(struct sql *sql, int segments_fd, struct voided *ret, struct err *err) must_check;
