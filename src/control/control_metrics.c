#include "control/control_metrics.h"

#include <stddef.h>

static const double latency[] = {.05, .1, .25, .5, 1, 2, 5, 0};
static const double lease_latency[] = {.005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 300, 3600, 0};

#define NAME(rest) "nimbus_control_plane_" rest

const struct metric control_metrics[CONTROL_METRIC_COUNT] = {
	[M_REQUESTS] = {NAME("requests_total"), METRIC_COUNTER, "API requests answered"},
	[M_LEASES] = {NAME("job_leases_total"), METRIC_COUNTER, "leases given"},
	[M_QUEUE_LENGTH] = {NAME("queue_length"), METRIC_GAUGE, "jobs that are ready to be leased"},
	[M_WEBHOOK_REPLAYS] = {NAME("webhook_replays_blocked"), METRIC_COUNTER, "deliveries that had come before"},
	[M_ORG_LIMITS] = {NAME("org_rate_limits_hit"), METRIC_COUNTER, "jobs held back by their organisation's limit"},
	[M_CALL_LIMITS] = {NAME("call_rate_limits_hit_total"), METRIC_COUNTER,
			   "admin calls and tokens refused with 429"},
	[M_REQUEST_LATENCY] = {NAME("request_latency_seconds"), METRIC_HISTOGRAM,
			       "time to answer; waiting calls are left out", .buckets = latency},
	[M_WEBHOOKS] = {NAME("webhooks_accepted_total"), METRIC_COUNTER, "deliveries that are durable"},
	[M_WEBHOOKS_REFUSED] = {NAME("webhooks_refused_total"), METRIC_COUNTER,
				"accepted deliveries that became no job"},
	[M_LEASE_LATENCY] = {NAME("lease_latency_seconds"), METRIC_HISTOGRAM, "from ready to leased",
			     .buckets = lease_latency},
	[M_LEASES_UNDELIVERED] = {NAME("leases_undelivered_total"), METRIC_COUNTER,
				  "leases that went back because their answer could not be written"},
	[M_LEASES_EXPIRED] = {NAME("leases_expired_total"), METRIC_COUNTER, "leases whose time was over"},
	[M_JOBS_CREATED] = {NAME("jobs_created_total"), METRIC_COUNTER, "jobs that came to be"},
	[M_JOBS_ENDED] = {NAME("jobs_ended_total"), METRIC_COUNTER, "jobs that ended, by state", .label = "state",
			  .values =
				  (const char *const[]){"succeeded", "failed", "cancelled", "timed_out", "dead", NULL}},
	[M_JOBS_REQUEUED] = {NAME("jobs_requeued_total"), METRIC_COUNTER, "jobs that went back into the queue"},
	[M_SEALS_WAITING] = {NAME("log_seals_waiting"), METRIC_GAUGE, "log attempts that are to be sealed"},
	[M_WAITING] = {NAME("waiting_requests"), METRIC_GAUGE, "calls that wait for work or commands"},
	[M_PEER_NOTES] = {NAME("peer_notes_total"), METRIC_COUNTER,
			  "jobs and commands that other control planes on the database told of"},
	[M_DATABASE_UP] = {NAME("database_up"), METRIC_GAUGE, "1 while the database answers"},
	[M_HELD] = {NAME("held_jobs"), METRIC_GAUGE, "jobs parked by their organisation's rate"},
	[M_AGENTS_DRAINING] = {NAME("agents_draining"), METRIC_GAUGE, "agents that are given no new jobs"},
	[M_DELIVERIES_WAITING] = {NAME("deliveries_waiting"), METRIC_GAUGE, "accepted deliveries not processed yet"},
	[M_NONCES] = {NAME("webhook_nonces"), METRIC_GAUGE, "nonces of signed webhooks that are remembered"},
	[M_NONCES_LIMIT] = {NAME("webhook_nonces_limit"), METRIC_GAUGE, "how many there may be"},
	[M_DATABASE_WAITING] = {NAME("database_waiting"), METRIC_GAUGE,
				"writes that wait for their commit, and calls that wait for a connection"},
	[M_DATABASE_WAITING_LIMIT] = {NAME("database_waiting_limit"), METRIC_GAUGE, "how many there may be"},
	[M_DATABASE_CONNECTIONS] = {NAME("database_connections"), METRIC_GAUGE, "connections in use"},
	[M_DATABASE_CONNECTIONS_LIMIT] = {NAME("database_connections_limit"), METRIC_GAUGE, "how many there may be"},
};
