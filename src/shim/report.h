/*
 * What the agent is told of a job: kept, so that an agent that comes later is told all of it.
 */
#pragma once

#include <stdbool.h>

#include "proto/shim_msg.h"
#include "shim/link.h"

struct report {
	struct link *link;	      /* borrowed */
	const struct shim_start *job; /* borrowed; all zeros before it came */
	struct shim_booted booted;    /* guest_answered_ns 0: not yet; and so below */
	struct shim_running running;
	struct shim_exited exited;
	bool ended; /* all of `exited` stands */
	bool acknowledged;
};

/* To an agent that has just come: who it is, and what was told before. */
void report_all(const struct report *r);
/* Nothing where it is not there yet, or nobody has to be told any more. */
void report_booted(const struct report *r);
void report_running(const struct report *r);
void report_exited(const struct report *r);
