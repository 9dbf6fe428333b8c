/*
 * The numbers of the control plane. The first six have the names of the Python Nimbus.
 */
#pragma once

#include "net/metrics.h"

enum control_metric {
	M_REQUESTS,
	M_LEASES,
	M_QUEUE_LENGTH,
	M_WEBHOOK_REPLAYS,
	M_ORG_LIMITS,
	M_REQUEST_LATENCY,
	M_CALL_LIMITS,
	M_WEBHOOKS,
	M_WEBHOOKS_REFUSED,
	M_LEASE_LATENCY,
	M_LEASES_UNDELIVERED,
	M_LEASES_EXPIRED,
	M_JOBS_CREATED,
	M_JOBS_ENDED,
	M_JOBS_REQUEUED,
	M_SEALS_WAITING,
	M_WAITING,
	M_DATABASE_UP,
	M_PEER_NOTES,
	CONTROL_METRIC_COUNT,
};

extern const struct metric control_metrics[CONTROL_METRIC_COUNT];
