/*
 * What is made of a job's end: its outcome, told from what was seen, the last line of its log, the counts, and who is
 * told. When it is time for that, is for life.h to know.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/shim_msg.h"
#include "shim/job_vm.h"
#include "shim/outcome.h"
#include "shim/outside.h"
#include "shim/report.h"

/* Gathered while the job goes on; all else is borrowed. */
struct ending {
	struct outcome_facts facts;
	int64_t start_ns;  /* the agent's decision came */
	int64_t exited_ns; /* the job's process ended; 0: it did not say so */
	struct report *report;
	struct outside *outside;
	struct job_vm *vm;
	char message[OUTCOME_TEXT_SIZE];
};

/* What its services were used for so far, into the report. False: it has none any more. */
bool ending_count_services(struct ending *e);
/* How long its VM took to answer; -1: it did not. */
int64_t ending_vm_ns(const struct ending *e);

/* The VM is gone. What is reported is on disk first: last_seq is a promise. False: the disk has no room, try again. */
bool ending_settle(struct ending *e) must_check;
/* The agent, and the job's client. */
void ending_tell(struct ending *e);
/* The lease is over after all was settled: what was reported holds no more. */
void ending_settle_lost(struct ending *e);
