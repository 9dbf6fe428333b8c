/*
 * How a job ended, told from what was seen: one pure function, so that the order of the questions stands in one place.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/process.h"
#include "proto/guest_frame.h"
#include "proto/shim_msg.h"

/* Why we ended the job, the first that was. */
enum stop_cause { STOP_NONE, STOP_CANCEL, STOP_TIMEOUT, STOP_LEASE };

struct outcome_facts {
	enum stop_cause stop;
	int64_t timeout_ns; /* the job's limit, for the message */
	bool answered;	    /* the guest has */
	bool sent;	    /* the job was given to the guest */
	bool exited;	    /* and the guest told its end: */
	struct guest_exit exit;
	bool vm_ended;		 /* by itself */
	struct err start_failed; /* code 0: none of these */
	struct err guest_lost;
	struct process_exit vmm; /* how it did */
	const char *last_words;	 /* of kernel or VMM; may be "" */
};

/* Fills reason, exit_code, signal; message into `text`, which ret->message then points to. */
enum { OUTCOME_TEXT_SIZE = 512 };
void outcome_of(const struct outcome_facts *f, char text[static OUTCOME_TEXT_SIZE], struct shim_exited *ret);
