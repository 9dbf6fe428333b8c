/*
 * What GitHub says of a job, folded into what we know of it.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "control/db/job_new.h"
#include "proto/github_webhook.h"

enum { GITHUB_FOLD_STALE = 1 }; /* the event told nothing new */

/*
 * One workflow_job event. `run_as` is what the job becomes here: its org, labels and limits, and what runs in a dry
 * run; where `leasable` is false it is parked with the reason github_app_not_configured.
 */
struct github_fold {
	const struct github_workflow_job *event;
	const struct job_spec *run_as;
	bool leasable;
};

/* Whatever came before it: creates the job when it is new, then moves it forward only. A job that GitHub gave to
 * another runner is parked with github_in_progress; one that ended there ends here, or is cancelled if it runs. *ret
 * lives in the transaction's arena. GITHUB_FOLD_STALE. */
int github_fold(struct control_tx *t, const struct github_fold *fold, struct job *ret, struct err *err) must_check;
