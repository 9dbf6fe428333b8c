/*
 * Where the time of a job went: its history as phases, one for each state that it was in. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/js.h"
#include "base/table.h"

enum { TIMELINE_MAX = 256 };

struct phase {
	const char *name; /* "queued", "leased", "VM start", "running", "parked"; or the state, where that is unknown */
	int64_t from_at;
	int64_t to_at; /* now, for one that goes on */
	bool goes_on;
	int64_t attempt;
	const char *agent_id; /* NULL: nobody had it */
	const char *ended_by; /* the reason of the move out of it; NULL: none */
};

struct timeline {
	struct phase phases[TIMELINE_MAX]; /* of a longer history the last */
	size_t count;
	int64_t from_at;
	int64_t to_at;
};

/* `history` as GET /api/jobs/{id}/history has it, which must outlive *ret. What is no time there is passed over. */
void timeline_make(const struct js *history, int64_t now_at, struct timeline *ret);
/* A line a phase: when, what, how long; on a terminal with bars. */
void timeline_put(const struct timeline *t, const struct screen *screen, struct buf *out);
struct js *timeline_js(const struct timeline *t) must_check;

/* "71 ms", "1.24 s", "2 m 05 s", "3 h 20 m" */
void put_duration(int64_t ns, struct buf *out);
