/*
 * The calls of agents that wait, for work or for commands: what is known of each, and who wakes them when something has
 * happened here, at another control plane, or on their own hosts. A call looks again when it is woken: a wake too many
 * costs a read, and none is lost, since a call that is about to wait looks first.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "control/db/leases_db.h"
#include "model/labels.h"

struct app;

/* A call's offer: what it asks the database with each time it runs, and the tag under which it is found to be woken. */
struct lease_wait {
	const char *agent_id;
	struct label_set labels;
	int64_t vcpus; /* free; -1: not said */
	int64_t memory_mb;
	bool waits;
	bool drains;	    /* as it was when it looked: it is not woken for jobs */
	bool told_draining; /* as the agent says that it was told */
	bool says_draining; /* it does say */
	int64_t deadline_ns;
	/* The job whose event ended its wait, 0: none did; and struct ready_job's `more`. Written under the lock of all
	 * waits. */
	struct lease_wish {
		int64_t job_id;
		bool more;
	} * woken_for;
};

/* Wakes the lease call that has waited longest of those that could take the job. False: there is none. */
bool lease_wake(struct app *app, const struct ready_job *job);
/* Wakes the agent's calls that wait for work: it is given some again. False: there is none. */
bool lease_wake_agent(struct app *app, const char *agent_id);
/* Wakes the agent's calls that wait for commands, whose tag is its id. False: there is none. */
bool commands_wake(struct app *app, const char *agent_id);
