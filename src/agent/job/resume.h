/*
 * What a former agent left: a shim that lives is adopted, of a dead one the end is told.
 */
#pragma once

#include "agent/job/record.h"
#include "proto/shim_msg.h"

/* A job in LIFE_ADOPTED: connects to its shim. */
void job_seek_shim(struct agent_job *j);
/* It was found, and says whose it is. */
void job_shim_found(struct agent_job *j, const struct shim_hello *h);
