/*
 * One job on this host: from the lease's answer until nothing of it is left. All of it happens on the loop; the moves
 * are job_life.h's. job.c lives the life, job_renew.c keeps the lease, job_report.c tells the control plane.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/context.h"
#include "agent/job_life.h"
#include "agent/lease.h"
#include "agent/state.h"
#include "base/arena.h"
#include "base/secret.h"
#include "proto/agent_api.h"

struct control_call;
struct loop_source;
struct shim_link;

/* What the control plane is told, one after the other; what is overtaken is left out. */
enum report_step { REPORT_NOTHING, REPORT_STARTING, REPORT_RUNNING, REPORT_END };

/* Milestones for the numbers of a boot; monotonic, 0: not reached or not seen by this agent. */
struct job_times {
	int64_t leased_ns;
	int64_t vmm_started_ns;
	int64_t answered_ns;
	int64_t kernel_ns; /* a duration */
	int64_t running_ns;
	char accel[8];
};

struct agent_job {
	struct agent *agent;
	struct agent_job *prev, *next;
	int64_t job_id;
	int64_t attempt;
	int64_t vcpus;
	int64_t memory_mb;
	enum job_life life;
	bool busy;	/* with the worker or the database: comes back to a function that clears this */
	bool cancelled; /* asked for */
	bool give_back; /* the agent was told to stop at once */

	/* job_renew.c */
	struct lease lease;
	struct loop_source *renew_timer;
	struct control_call *renew_call;
	bool secrets_asked; /* by renew_call */

	/* job_report.c */
	struct loop_source *report_timer;
	struct control_call *report_call;
	enum report_step to_tell;
	enum report_step telling;
	enum report_step told;
	unsigned report_failures;
	struct job_result result;

	/* Until the shim has them: */
	struct arena *arena;
	const struct job_assignment *order;
	struct secret *log_token;

	/* What the worker made last, or why not. */
	struct vm_shim prepared;
	struct err work_err;

	struct shim_link *link;
	struct process shim;
	bool shim_is_child; /* else adopted: somebody else reaps it */
	struct loop_source *shim_exit;
	struct loop_source *guard; /* connects again, or kills a shim that does not go */
	unsigned revivals;	   /* shims started to ship what a dead one left */
	struct job_times times;
};

/* Takes the arena, in which the answer lies. */
void job_begin(struct agent *a, struct arena *arena, const struct lease_answer *answer);
/* What an agent before this one left behind: a folder, a row (or NULL), or both. Before the loop runs. */
void job_resume(struct agent *a, int64_t job_id, int64_t attempt, const struct state_job *row);

/* True when it is news. */
bool jobs_command(struct agent *a, const struct agent_command *c);
/* Ends all of them now and gives their leases back. */
void jobs_give_back(struct agent *a);
/* Those that still need this agent: not the ones whose shims only ship their last lines. */
size_t jobs_needed(const struct agent *a);
size_t jobs_count(const struct agent *a);
/* Those of former agents that have not said yet how far they are, and so what they take. */
size_t jobs_unclear(const struct agent *a);
/* Brings the gauges up to date. */
void jobs_show(struct agent *a);
/* Lets go of the memory, at the end: what runs, runs on. */
void jobs_forget(struct agent *a);

/* --- between job.c, job_renew.c and job_report.c --- */

/* Renews now; with the answer, and `secrets` in it if asked for, job_fence_checked() is called. */
void job_renew(struct agent_job *j, bool secrets);
void job_renew_stop(struct agent_job *j);
void job_fence_checked(struct agent_job *j, const struct js *secret_env);
/* The deadline has moved: the shim is to know. */
void job_lease_extended(struct agent_job *j);
/* The fence was refused, or the deadline has passed. */
void job_lost(struct agent_job *j, const char *why);

void job_report(struct agent_job *j, enum report_step step);
void job_report_stop(struct agent_job *j);
/* The control plane has heard, or will not hear, the end. */
void job_reported(struct agent_job *j);
