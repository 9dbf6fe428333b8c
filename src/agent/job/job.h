/*
 * One job on this host: from the lease's answer until nothing of it is left. All of it happens on the loop; the moves
 * are life.h's. This is the folder's face, and its uppermost room: what the others tell is put together here.
 */
#pragma once

#include "agent/job/record.h"

/* Takes the arena, in which the answer lies. */
void job_begin(struct agent *a, struct arena *arena, const struct lease_answer *answer);
/* What an agent before this one left behind: a folder, a row (or NULL), or both. Before the loop runs. */
void job_resume(struct agent *a, int64_t job_id, int64_t attempt, const struct state_job *row);

/* True when it is news. */
bool jobs_command(struct agent *a, const struct agent_command *c);
/* Ends all of them now and gives their leases back. */
void jobs_give_back(struct agent *a);
/* Lets go of the memory, at the end: what runs, runs on. */
void jobs_forget(struct agent *a);
