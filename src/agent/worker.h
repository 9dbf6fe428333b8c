/*
 * One thread for what may not run on the loop because it blocks: folders, files, starting processes. Work is done in
 * the order given; `done` is called on the loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct loop;
struct worker;

typedef void (*worker_fn)(void *ctx);

int worker_new(struct loop *loop, struct worker **ret, struct err *err) must_check;
/* Finishes the work that it has; `done` of that is not called. */
void worker_free(struct worker *w);
AUTOPTR_DEFINE(worker)
/* False when far too much is waiting. ctx is the worker's until `done`. */
bool worker_give(struct worker *w, worker_fn run, worker_fn done, void *ctx) must_check;
