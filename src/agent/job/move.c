#include "agent/job/move.h"

#include <assert.h>

#include "agent/job/renew.h"
#include "base/log.h"

void job_enter(struct agent_job *j, enum job_life to)
{
	enum job_life from = j->life;

	assert(job_life_may_move(from, to));
	j->life = to;
	log_debug("job moves", F("job", j->job_id), F("attempt", j->attempt), F("from", job_life_text(from)),
		  F("to", job_life_text(to)));
	if (!job_life_is_renewed(to))
		job_renew_stop(j);
	if (job_life_has_slot(from) && !job_life_has_slot(to)) {
		slots_release(&j->agent->slots, j->vcpus, j->memory_mb);
		jobs_show(j->agent);
		j->agent->changed(j->agent);
	}
}
