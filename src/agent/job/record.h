/*
 * One job on this host, as the rooms of this folder share it: the record, the agent's list of them, their slots. All of
 * it is the loop's. Who may include whom: record <- renew, report, shim <- move <- end <- start, resume <- job.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/context.h"
#include "agent/job/lease.h"
#include "agent/job/life.h"
#include "agent/state.h"
#include "base/arena.h"
#include "base/secret.h"
#include "proto/agent_api.h"
#include "proto/shim_msg.h"

struct control_call;
struct loop_source;
struct shim_link;

/* What the control plane is told, one after the other; what is overtaken is left out. */
enum report_step { REPORT_NOTHING, REPORT_STARTING, REPORT_RUNNING, REPORT_END };

/* Milestones for the numbers of a boot; monotonic, 0: not reached or not seen by this agent. */
struct job_times {
	int64_t leased_ns;
	int64_t decided_ns;  /* a VM is made */
	int64_t prepared_ns; /* files, folder and shim are there */
	int64_t vmm_started_ns;
	int64_t vmm_up_ns;
	int64_t restored_ns; /* of a clone */
	int64_t answered_ns;
	int64_t kernel_ns; /* a duration */
	int64_t waited_ns; /* a duration: ready, in the pool; 0: it was not from there, or not ready yet */
	bool early;	   /* from the pool, not ready yet */
	int64_t running_ns;
	char accel[16];
};

/* What the lower rooms tell the uppermost, which alone knows all of them: job.c. */
struct job_events {
	/* The lease is good for longer; the answer may bring commands, and secrets if they were asked for. */
	void (*renewed)(struct agent_job *j, const struct renew_answer *answer);
	/* The fence was refused, or the deadline has passed. */
	void (*lost)(struct agent_job *j, const char *why);
	/* The control plane has heard, or will not hear, the end. */
	void (*reported)(struct agent_job *j);
	void (*shim_says)(struct agent_job *j, const struct shim_msg *m);
	/* The link is dropped: no message comes any more. */
	void (*shim_silent)(struct agent_job *j);
	/* The process is no more. */
	void (*shim_gone)(struct agent_job *j);
};

struct agent_job {
	struct agent *agent;
	const struct job_events *events;
	struct agent_job *prev, *next;
	int64_t job_id;
	int64_t attempt;
	int64_t vcpus;
	int64_t memory_mb;
	enum job_life life;
	unsigned busy;	/* so many things are with the worker or the database: each comes back to a function that counts
			   it */
	bool cancelled; /* asked for */
	bool give_back; /* the agent was told to stop at once */

	/* renew.c */
	struct lease lease;
	struct loop_source *renew_timer;
	struct control_call *renew_call;
	bool secrets_asked; /* by renew_call */
	bool fence_good;    /* found so since it counted last: since the lease, and again since there is a VM */

	/* report.c */
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
	struct secret *job_token; /* for its files and sessions */
	struct secret *services_token;

	struct vm_template template; /* name "": none */
	/* Of the pool, until the secrets went: its shim had its orders at once, and the guest hears who it is while all
	 * else is still under way. */
	bool from_pool;
	bool guest_up;			 /* it has answered */
	bool refill;			 /* it was of no use: an ordinary VM is made when its shim is gone */
	char spare[VM_FOLDER_NAME_SIZE]; /* its folder's name until it is the job's; "": it is */
	struct js *secret_env;		 /* with the fence that was found good, for a guest that is not up yet */
	/* What the worker made last, or why not. */
	struct vm_shim prepared;
	struct image image; /* what it was started from, by this agent */
	bool verity;	    /* its guest says that it checks every block */
	struct err work_err;
	int hand_over_rc;
	struct err hand_over_err;

	struct shim_link *link;
	struct process shim;
	bool shim_is_child; /* else adopted: somebody else reaps it */
	struct loop_source *shim_exit;
	struct loop_source *guard;    /* connects again, or kills a shim that does not go */
	struct shim_shipping counted; /* of what this shim has shipped */
	struct shim_served served;    /* and of what its services were used for */
	unsigned revivals;	      /* shims started to ship what a dead one left */
	struct job_times times;
};

/* Joins the agent's list. */
struct agent_job *job_new(struct agent *a, int64_t job_id, int64_t attempt, enum job_life life,
			  const struct job_events *events) must_check;
/* Leaves it. Its slot is given back before that: job_enter(). */
void job_free(struct agent_job *j);
/* The shim has the order, or nobody will. */
void job_forget_order(struct agent_job *j);
void job_take_slot(struct agent_job *j, int64_t vcpus, int64_t memory_mb);

/* Those that still need this agent: not the ones whose shims only ship their last lines. */
size_t jobs_needed(const struct agent *a);
size_t jobs_count(const struct agent *a);
/* Those of former agents that have not said yet how far they are, and so what they take. */
size_t jobs_unclear(const struct agent *a);
/* Those that no other agent could take over as they are: something is just being done for them. */
size_t jobs_unsettled(const struct agent *a);
/* Those that have a slot, and no running command yet. */
size_t jobs_starting(const struct agent *a);
/* Brings the gauges up to date. */
void jobs_show(struct agent *a);
