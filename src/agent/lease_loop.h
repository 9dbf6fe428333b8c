/*
 * The one call that waits for work: POST /api/jobs/lease with what is free, again and again while anything is.
 */
#pragma once

#include "agent/context.h"
#include "base/compiler.h"
#include "base/err.h"

struct lease_loop;

int lease_loop_new(struct agent *a, struct lease_loop **ret, struct err *err) must_check;
void lease_loop_free(struct lease_loop *l);
AUTOPTR_DEFINE(lease_loop)
/* Looks whether there is something to ask for: after start, and whenever slots have changed. */
void lease_loop_kick(struct lease_loop *l);
/* No further job. */
void lease_loop_stop(struct lease_loop *l);
