#include "agent/metrics.h"

#include "proto/shim_msg.h"

#define TEXT(name, text) text,
static const char *const services[] = {SHIM_SERVICES(TEXT) NULL};
static const char *const refusals[] = {SHIM_REFUSALS(TEXT) NULL};
#undef TEXT

static const struct metric table[] = {
	[M_LEASE_REQUESTS] = {"nimbus_host_agent_lease_requests_total", METRIC_COUNTER, "calls for a job"},
	[M_LEASE_ERRORS] = {"nimbus_host_agent_lease_errors_total", METRIC_COUNTER, "calls for a job that failed"},
	[M_EMPTY_LEASES] = {"nimbus_host_agent_empty_leases_total", METRIC_COUNTER, "calls for a job that found none"},
	[M_LEASES_LOST] = {"nimbus_host_agent_leases_lost_total", METRIC_COUNTER,
			   "leases that were refused or ran out; their VMs were destroyed"},
	[M_RENEWALS] = {"nimbus_host_agent_lease_renewals_total", METRIC_COUNTER, "leases renewed"},
	[M_RENEWAL_ERRORS] = {"nimbus_host_agent_lease_renewal_errors_total", METRIC_COUNTER,
			      "renewals that brought no answer"},
	[M_JOBS_STARTED] = {"nimbus_host_agent_jobs_started_total", METRIC_COUNTER, "VMs started for jobs"},
	[M_JOBS_SUCCEEDED] = {"nimbus_host_agent_jobs_succeeded_total", METRIC_COUNTER, "jobs that exited with 0"},
	[M_JOBS_FAILED] = {"nimbus_host_agent_jobs_failed_total", METRIC_COUNTER, "jobs that failed or timed out"},
	[M_JOBS_CANCELLED] = {"nimbus_host_agent_jobs_cancelled_total", METRIC_COUNTER, "jobs that were cancelled"},
	[M_JOBS_LOST] = {"nimbus_host_agent_jobs_lost_total", METRIC_COUNTER,
			 "jobs that ended without a result of their own and were given back"},
	[M_JOBS_ADOPTED] = {"nimbus_host_agent_jobs_adopted_total", METRIC_COUNTER,
			    "jobs taken over from an agent that had died"},
	[M_JOB_TIMEOUTS] = {"nimbus_host_agent_job_timeouts_total", METRIC_COUNTER, "jobs that ran into their limit"},
	[M_LAST_TIMEOUT] = {"nimbus_host_agent_last_timeout_timestamp", METRIC_GAUGE, "Unix time of the last of these"},
	[M_ACTIVE_JOBS] = {"nimbus_host_agent_active_jobs", METRIC_GAUGE, "jobs that hold a slot"},
	[M_VCPUS_FREE] = {"nimbus_host_agent_vcpus_free", METRIC_GAUGE, "virtual CPUs that are offered"},
	[M_MEMORY_FREE] = {"nimbus_host_agent_memory_free_bytes", METRIC_GAUGE, "memory that is offered"},
	[M_LOG_BATCHES] = {"nimbus_host_agent_log_batches_total", METRIC_COUNTER,
			   "batches of log lines that the pipeline took from shims"},
	[M_LOG_ERRORS] = {"nimbus_host_agent_log_errors_total", METRIC_COUNTER,
			  "calls of shims to the pipeline that failed or were refused"},
	[M_LOG_ROWS] = {"nimbus_host_agent_log_rows_total", METRIC_COUNTER, "log lines of jobs that ended"},
	[M_JOB_CPU_SECONDS] = {"nimbus_job_cpu_seconds_total", METRIC_GAUGE,
			       "CPU time of the VM of the job that ended last"},
	[M_JOB_MEMORY_BYTES] = {"nimbus_job_memory_bytes", METRIC_GAUGE,
				"largest resident size of the VM of the job that ended last"},
	[M_TEMPLATES] = {"nimbus_host_agent_templates", METRIC_GAUGE, "templates of VMs that are ready for use"},
	[M_TEMPLATES_MADE] = {"nimbus_host_agent_templates_made_total", METRIC_COUNTER, "templates that were made"},
	[M_TEMPLATES_BROKEN] = {"nimbus_host_agent_templates_broken_total", METRIC_COUNTER,
				"templates that could not be used; their VMs booted"},
	[M_CLONES] = {"nimbus_host_agent_clones_total", METRIC_COUNTER, "VMs that were begun from a template"},
	[M_RESTARTS] = {"nimbus_host_agent_vm_restarts_total", METRIC_COUNTER,
			"VMs that did not come up in time and were started once more"},
	[M_SERVICE_REQUESTS] = {"nimbus_host_agent_service_requests_total", METRIC_COUNTER,
				"requests of jobs that were passed on to a service; of dns: connections",
				.label = "service", .values = services},
	[M_SERVICE_SENT] = {"nimbus_host_agent_service_sent_bytes_total", METRIC_COUNTER,
			    "bytes that jobs sent to a service", .label = "service", .values = services},
	[M_SERVICE_RECEIVED] = {"nimbus_host_agent_service_received_bytes_total", METRIC_COUNTER,
				"bytes that a service sent to jobs", .label = "service", .values = services},
	[M_SERVICE_REFUSED] = {"nimbus_host_agent_service_refused_total", METRIC_COUNTER,
			       "requests and connections of jobs that a service did not get, or did not answer",
			       .label = "reason", .values = refusals},
	[M_SERVICE_STREAMS] = {"nimbus_host_agent_service_streams", METRIC_GAUGE,
			       "connections of jobs to services, as their shims last told", .label = "service",
			       .values = services},
	[M_POOL] = {"nimbus_host_agent_pool_clones", METRIC_GAUGE, "VMs that are ready and wait for a job"},
	[M_POOL_BYTES] = {"nimbus_host_agent_pool_bytes", METRIC_GAUGE,
			  "memory that those take, each its part of what it shares, as measured when it got ready"},
	[M_POOL_HITS] = {"nimbus_host_agent_pool_hits_total", METRIC_COUNTER, "jobs that got a VM that was ready"},
	[M_POOL_EARLY] = {"nimbus_host_agent_pool_early_total", METRIC_COUNTER,
			  "jobs that got a VM that was nearly ready"},
	[M_POOL_MISSES] = {"nimbus_host_agent_pool_misses_total", METRIC_COUNTER,
			   "jobs that got none, or one that turned out to be of no use", .label = "reason",
			   .values = (const char *const[]){"off", "no_template", "none_ready", "wasted", NULL}},
	[M_JOB_DURATION] = {"nimbus_job_duration_seconds", METRIC_HISTOGRAM, "VM start to end",
			    .buckets = (const double[]){0.1, 0.5, 1, 5, 30, 60, 300, 600, 0}},
};

struct metrics *agent_metrics_new(void)
{
	return metrics_new(table, ARRAY_LEN(table));
}
