/*
 * One thread for what may not run on the loop because it blocks: folders, files, starting processes. Work is done in
 * the order given; `done` is called on the loop.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct loop;
struct chores;

typedef void (*chore_fn)(void *ctx);

int chores_new(struct loop *loop, struct chores **ret, struct err *err) must_check;
/* Finishes the work that it has; `done` of that is not called. */
void chores_free(struct chores *w);
AUTOPTR_DEFINE(chores)
/* False when far too much is waiting. ctx is the worker's until `done`. */
bool chores_give(struct chores *w, chore_fn run, chore_fn done, void *ctx) must_check;
