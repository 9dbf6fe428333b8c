/*
 * Commands that were handed to an agent a moment ago. A command stands in the database until the job has ended, so
 * without this an agent that asks again at once would get it again at once; one that is lost all the same comes again
 * after TOLD_NS. Bounded: when it is full the oldest is forgotten, which costs a repetition.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

#define TOLD_NS (2 * INT64_C(1000000000))

struct told;
struct told *told_new(void) must_check;
void told_free(struct told *t);
AUTOPTR_DEFINE(told)

/* Safe in threads. A fence is enough: it never comes twice for one job. */
void told_add(struct told *t, int64_t job_id, int64_t fence, int64_t now_ns);
bool told_lately(struct told *t, int64_t job_id, int64_t fence, int64_t now_ns) must_check;
