/*
 * The agent's own database: which jobs it has, with which fence, and results that the control plane does not have yet.
 * Written through the store's writer, so that the loop never waits; read once, at the start.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"

struct loop;
struct state;

/* The text is in the database. */
#define STATE_STAGES(X)       \
	X(STARTED, "started") \
	X(ENDED, "ended")

enum state_stage {
#define X(name, text) STATE_##name,
	STATE_STAGES(X)
#undef X
		STATE_STAGE_COUNT,
};

/* What POST /api/jobs/status is told at the end. */
struct job_result {
	const char *status; /* succeeded failed cancelled timed_out lost */
	const char *reason;
	char *message;	   /* may be NULL */
	int64_t exit_code; /* -1: none */
	int64_t signal;	   /* 0: none */
	int64_t last_seq;  /* -1: not known */
};

struct state_job {
	int64_t job_id;
	int64_t attempt;
	int64_t fence;
	int64_t vcpus;
	int64_t memory_mb;
	enum state_stage stage;
	struct job_result result; /* of STATE_ENDED */
};

/* Opens and migrates; blocks. The database may be other agents' too; their rows are not seen. */
int state_open(struct loop *loop, const char *dsn, const char *agent_id, struct state **ret, struct err *err)
	must_check;
/* Finishes the writes that it has; their `done` is not called. */
void state_free(struct state *s);
AUTOPTR_DEFINE(state)
/* All jobs, in the arena; blocks. */
int state_load(struct state *s, struct arena *arena, struct state_job **ret, size_t *ret_count, struct err *err)
	must_check;

/* err is NULL when it is durable. Called from the loop, also after a failure to begin, never from within the call. */
typedef void (*state_done_fn)(void *ctx, const struct err *err);
/* Inserts or replaces. Copies what it needs. */
void state_put(struct state *s, const struct state_job *job, state_done_fn done, void *ctx);
void state_delete(struct state *s, int64_t job_id, int64_t attempt, state_done_fn done, void *ctx);
