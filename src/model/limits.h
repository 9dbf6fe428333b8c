/*
 * The bounds of what a job may ask for, and what it gets when it does not ask. One place, so that the API, the agent
 * and the docs agree.
 */
#pragma once

#include <stdint.h>

enum {
	ORG_LOCAL = 1, /* owns jobs that were submitted by hand; org 0 is never valid */

	JOB_VCPUS_DEFAULT = 1,
	JOB_VCPUS_MAX = 32,
	JOB_MEMORY_MB_DEFAULT = 256,
	JOB_MEMORY_MB_MIN = 128,
	JOB_MEMORY_MB_MAX = 65536,
	JOB_DISK_MB_DEFAULT = 1024,
	JOB_DISK_MB_MIN = 16,
	JOB_DISK_MB_MAX = 262144,
	JOB_TIMEOUT_S_DEFAULT = 3600,
	JOB_TIMEOUT_S_MAX = 86400,
	JOB_ATTEMPTS_DEFAULT = 3,
	JOB_ATTEMPTS_MAX = 10,

	JOB_ARGV_MAX = 1024,
	JOB_ARGV_BYTES_MAX = 49152, /* argv and env together: they travel in one guest frame (64 KiB) */
	JOB_ENV_MAX = 256,
	IDEMPOTENCY_KEY_MAX = 200,

	LEASE_WAIT_S_MAX = 30,
	SERVICES_TOKEN_EXTRA_S = 900, /* longer than any boot and grace; the job itself ends sooner */
	LOG_TOKEN_EXTRA_S = 86400, /* the log token outlives the job, so that a pipeline that was away costs no line */
};

/* Ids stay exact in every JSON reader. */
#define JOB_ID_MAX ((INT64_C(1) << 53) - 1)
