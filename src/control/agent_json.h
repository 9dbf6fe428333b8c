/*
 * An agent as people and dashboards see it.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "base/js.h"
#include "control/db/agents_db.h"

struct js *agent_record(const struct agent *agent, struct arena *arena) must_check;
