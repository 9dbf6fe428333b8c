/*
 * What the guest is told to run: the agent's start and go, put together.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_frame.h"
#include "proto/shim_msg.h"
#include "shim/services.h"

/*
 * Every job finds PATH, HOME, CI and NIMBUS in its environment unless it says otherwise; a secret goes before a plain
 * variable of the same name. *ret points into `start` and `text`; `text` is empty before, and as it holds secrets, the
 * caller wipes all of its capacity. `services` (NULL: none) gives the ports that the guest listens on, and the
 * variables that name them.
 */
int job_compose(const struct shim_start *start, const struct shim_go *go, const struct services *services,
		struct guest_job *ret, struct buf *text, struct err *err) must_check;
