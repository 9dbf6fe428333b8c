/*
 * The life of a job on this host, and the only moves in it. Pure.
 *
 *	leased -> booting -> checking -> going -> running -> ended -> reporting -> closing
 *
 * Every life ends in closing. ended is reached from everywhere before it: a job that could not start, was cancelled
 * before it had a VM, or whose shim died has a result too. lost is the one end without a report: the fence was refused,
 * so this host has nothing to say about the job any more.
 */
#pragma once

#include <stdbool.h>

/* name, text, its slot is taken, the lease is renewed */
#define JOB_LIVES(X)                                                                                             \
	X(LEASED, "leased", true, true)	    /* the fence is checked; the row, files, folder and shim are made */ \
	X(ADOPTED, "adopted", true, true)   /* found with its shim: it will say how far it is */                 \
	X(BOOTING, "booting", true, true)   /* the shim has its orders, the VM starts */                         \
	X(CHECKING, "checking", true, true) /* the guest has answered; the fence is checked again */             \
	X(GOING, "going", true, true)	    /* the job and its secrets went to the guest */                      \
	X(RUNNING, "running", true, true)                                                                        \
	X(ENDED, "ended", false, true)	       /* there is a result, and it is written down */                   \
	X(REPORTING, "reporting", false, true) /* the control plane is told until it accepts or refuses */       \
	X(LOST, "lost", true, false)	       /* the lease is gone: the VM is destroyed, nobody is told */      \
	X(CLOSING, "closing", false, false)    /* the last log lines are shipped, then everything is removed */

enum job_life {
#define X(name, text, slot, renewed) LIFE_##name,
	JOB_LIVES(X)
#undef X
		LIFE_COUNT,
};

const char *job_life_text(enum job_life life);
bool job_life_may_move(enum job_life from, enum job_life to);
bool job_life_has_slot(enum job_life life);
bool job_life_is_renewed(enum job_life life);
