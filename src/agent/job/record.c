#include "agent/job/record.h"

#include "agent/control_client.h"
#include "agent/metrics.h"
#include "agent/shim_link.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/loop.h"

struct agent_job *job_new(struct agent *a, int64_t job_id, int64_t attempt, enum job_life life,
			  const struct job_events *events)
{
	struct agent_job *j = xcalloc(1, sizeof(*j));

	j->agent = a;
	j->events = events;
	j->job_id = job_id;
	j->attempt = attempt;
	j->life = life;
	j->shim.pidfd = -1;
	vm_shim_init(&j->prepared);
	j->result = (struct job_result){.exit_code = -1, .last_seq = -1};
	j->next = a->jobs;
	if (j->next != NULL)
		j->next->prev = j;
	a->jobs = j;
	return j;
}

void job_forget_order(struct agent_job *j)
{
	j->order = NULL;
	secret_free(TAKE(j->log_token));
	secret_free(TAKE(j->job_token));
	secret_free(TAKE(j->services_token));
	arena_free(TAKE(j->arena));
}

void job_free(struct agent_job *j)
{
	struct agent *a = j->agent;

	control_cancel(j->renew_call);
	loop_source_free(j->renew_timer);
	control_cancel(j->report_call);
	loop_source_free(j->report_timer);
	job_forget_order(j);
	js_free(j->secret_env);
	vm_shim_fini(&j->prepared);
	shim_link_free(j->link);
	loop_source_free(j->shim_exit);
	loop_source_free(j->guard);
	fd_close(&j->shim.pidfd);
	free(j->result.message);
	if (j->prev != NULL)
		j->prev->next = j->next;
	else
		a->jobs = j->next;
	if (j->next != NULL)
		j->next->prev = j->prev;
	free(j);
}

void jobs_show(struct agent *a)
{
	int64_t streams[SHIM_SERVICE_COUNT] = {0};
	size_t active = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next) {
		active += job_life_has_slot(j->life);
		for (size_t i = 0; i < SHIM_SERVICE_COUNT; i++)
			streams[i] += j->served.each[i].streams;
	}
	for (size_t i = 0; i < SHIM_SERVICE_COUNT; i++)
		metrics_set_at(a->metrics, M_SERVICE_STREAMS, i, (double)streams[i]);
	metrics_set(a->metrics, M_ACTIVE_JOBS, (double)active);
	metrics_set(a->metrics, M_VCPUS_FREE, (double)slots_vcpus_free(&a->slots));
	metrics_set(a->metrics, M_MEMORY_FREE, (double)slots_memory_mb_free(&a->slots) * 1048576);
}

void job_take_slot(struct agent_job *j, int64_t vcpus, int64_t memory_mb)
{
	j->vcpus = vcpus;
	j->memory_mb = memory_mb;
	slots_take(&j->agent->slots, vcpus, memory_mb);
	jobs_show(j->agent);
}

size_t jobs_needed(const struct agent *a)
{
	size_t count = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		count += j->life != LIFE_CLOSING;
	return count;
}

size_t jobs_count(const struct agent *a)
{
	size_t count = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		count++;
	return count;
}

size_t jobs_unclear(const struct agent *a)
{
	size_t count = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		count += j->life == LIFE_ADOPTED && j->vcpus == 0;
	return count;
}

size_t jobs_starting(const struct agent *a)
{
	size_t count = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		count += job_life_has_slot(j->life) && j->life < LIFE_RUNNING;
	return count;
}

size_t jobs_unsettled(const struct agent *a)
{
	size_t count = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		count += j->busy > 0 || j->life == LIFE_LEASED;
	return count;
}
