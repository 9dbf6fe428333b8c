/*
 * A background worker: one thread that does a pass over something again and again: at once when it is woken, otherwise
 * when the pause that the last pass asked for is over. What there is to do stands in the database; a wake-up is only a
 * hint, so two of them may become one, and none may come at all.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct worker;

/* Gives how long to wait for the next pass, in ns; 0: there is more to do now. */
typedef int64_t worker_pass_fn(void *ctx);

struct worker *worker_new(worker_pass_fn *pass, void *ctx) must_check;
int worker_start(struct worker *w, struct err *err) must_check;
/* From any thread. NULL is fine. */
void worker_wake(struct worker *w);
/* Waits for the pass that is under way. Fine when it never started. */
void worker_stop(struct worker *w);
/* Stops it first. */
void worker_free(struct worker *w);
AUTOPTR_DEFINE(worker)
