/*
 * The agent's numbers.
 */
#pragma once

#include "base/compiler.h"
#include "net/metrics.h"

enum {
	M_LEASE_REQUESTS,
	M_LEASE_ERRORS,
	M_EMPTY_LEASES,
	M_LEASES_LOST,
	M_RENEWALS,
	M_RENEWAL_ERRORS,
	M_JOBS_STARTED,
	M_JOBS_SUCCEEDED,
	M_JOBS_FAILED,
	M_JOBS_CANCELLED,
	M_JOBS_LOST,
	M_JOBS_ADOPTED,
	M_JOB_TIMEOUTS,
	M_LAST_TIMEOUT,
	M_ACTIVE_JOBS,
	M_VCPUS_FREE,
	M_MEMORY_FREE,
	M_LOG_ROWS,
	M_LOG_BATCHES,
	M_LOG_ERRORS,
	M_JOB_CPU_SECONDS,
	M_JOB_MEMORY_BYTES,
	M_JOB_DURATION,
};

struct metrics *agent_metrics_new(void) must_check;
