/*
 * What the pieces of one running agent share. agent.c makes it; everything here is the loop's thread's, except where
 * it says otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "agent/slots.h"
#include "agent/vm_folder.h"
#include "model/settings.h"

struct agent_job;
struct control_client;
struct loop;
struct metrics;
struct state;
struct chores;
struct pool;
struct templates;

struct agent {
	const struct agent_settings *settings;
	char *id;
	struct loop *loop;
	struct control_client *control;
	struct state *state;
	struct chores *chores;
	struct metrics *metrics;
	struct templates *templates;
	struct pool *pool;
	struct vm_host host;   /* read by the worker; changed by nobody */
	int64_t accel;	       /* enum vm_accel; set before the first job */
	int64_t tsc_khz;       /* vm/tsc.h */
	int64_t min_free_disk; /* bytes; with less there are no new jobs */
	struct slots slots;
	struct agent_job *jobs;
	/* Called when a slot is free again, or a job is closing or gone. */
	void (*changed)(struct agent *a);
};
