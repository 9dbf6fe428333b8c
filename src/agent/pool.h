/*
 * Machines that are ready before their jobs come: for each template that jobs ask for, a few shims with a clone that
 * waits for its identity (proto/shim_msg.h: spares). How many is said by model/pool.h. They hold no slot: where a job,
 * or the host, needs what they take, they go first.
 *
 * All of it is the loop's; what blocks runs on the worker. A job never waits for any of this: where none is ready, or
 * the one that it got turns out to be of no use, it begins as if there were no pool.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/vm_folder.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/agent_api.h"

struct agent;
struct pool;

int pool_new(struct agent *a, struct pool **ret, struct err *err) must_check;
/* Those that wait end, and are waited for. The worker is done with all before this. */
void pool_free(struct pool *p);
AUTOPTR_DEFINE(pool)

/* What former agents left is removed; from then on there are spares. */
void pool_begin(struct pool *p);
/* Those that wait end; there are no more. */
void pool_stop(struct pool *p);

/* No jobs come until it is called with false: those that wait end. NULL: a pool that is not there yet. */
void pool_drain(struct pool *p, bool drained);

/* A job has come, for which there is this template, or NULL. True: a clone of it is this job's now: its shim is in *ret
 * and lives in the folder `spare`; it may not be quite ready yet. It counts as demand where a spare could have been
 * this job's. Before the job's slot is taken or after it. */
bool pool_take(struct pool *p, const struct job_assignment *job, const struct vm_template *template,
	       struct vm_shim *ret, char spare[static VM_FOLDER_NAME_SIZE]);
/* What pool_take() gave could not be used after all. */
void pool_wasted(struct pool *p);
/* Slots were taken or given back. */
void pool_look(struct pool *p);
/* There is no such template any more. NULL: a pool that is not there yet. */
void pool_forget(struct pool *p, const char *template);
