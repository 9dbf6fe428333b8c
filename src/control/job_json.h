/*
 * A job as others see it: people and dashboards as a record, an agent as an assignment.
 */
#pragma once

#include "base/compiler.h"
#include "base/js.h"
#include "control/db/job_row.h"
#include "control/db/jobs_db.h"
#include "proto/agent_api.h"

/* The Python Nimbus's JobRecord, with our fields beside its own. */
struct js *job_record(const struct job *job) must_check;
/* Everything but the log token, which is the caller's to add. Borrows from the job. */
struct job_assignment job_assignment_of(const struct job *job) must_check;
/* How many jobs there are in each state that any is in. */
struct js *states_record(const struct jobs_counts *counts) must_check;
