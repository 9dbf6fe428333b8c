/*
 * How many searches an organisation may have under way. Safe in threads.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct gate;
struct gate *gate_new(size_t each_max) must_check;
/* Everybody has left. */
void gate_free(struct gate *g);
AUTOPTR_DEFINE(gate)

/* ERR_LIMIT: it has as many as it may. Else gate_leave() has to follow. */
int gate_enter(struct gate *g, int64_t org_id, struct err *err) must_check;
void gate_leave(struct gate *g, int64_t org_id);
/* All of them now. */
size_t gate_count(struct gate *g);
