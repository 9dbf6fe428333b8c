/*
 * The one call that waits for commands: POST /api/agents/commands, always open, so that a cancel reaches a job at once.
 */
#pragma once

#include "agent/context.h"
#include "base/compiler.h"
#include "base/err.h"

struct commands_loop;

/* Begins at once. */
int commands_loop_new(struct agent *a, struct commands_loop **ret, struct err *err) must_check;
void commands_loop_free(struct commands_loop *l);
AUTOPTR_DEFINE(commands_loop)
