/*
 * The event loop of the roles that have one thread (agent, shim, up): the wrapper of sd-event. Callbacks are short,
 * never block, and handle their own errors. A callback may release any source, its own too.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct loop;
struct loop_source;

/* What is ready at the same time runs in this order. */
enum loop_priority {
	LOOP_URGENT = -100, /* lease renewals and deadlines */
	LOOP_NORMAL = 0,
	LOOP_BULK = 100, /* output of guests */
};

enum loop_events {
	LOOP_READ = 1,
	LOOP_WRITE = 2,
	LOOP_HANGUP = 4, /* error or hang-up: always watched, never asked for */
};

typedef void (*loop_fd_fn)(void *ctx, unsigned events);
typedef void (*loop_fn)(void *ctx);

int loop_new(struct loop **ret, struct err *err) must_check;
/* Its sources have been released before. */
void loop_free(struct loop *l);
AUTOPTR_DEFINE(loop)

/* Until loop_stop(). */
int loop_run(struct loop *l, struct err *err) must_check;
/* Waits for one event until deadline_ns (monotonic), and handles it: what tests and short waits use. ERR_TIMEOUT. */
int loop_step(struct loop *l, int64_t deadline_ns, struct err *err) must_check;
void loop_stop(struct loop *l);

/* Level-triggered; the descriptor stays the caller's and outlives the source. A pidfd is readable when its process has
 * ended, an eventfd when it is not zero. */
int loop_add_fd(struct loop *l, int fd, unsigned events, enum loop_priority priority, loop_fd_fn fn, void *ctx,
		struct loop_source **ret, struct err *err) must_check;
void loop_fd_set_events(struct loop_source *s, unsigned events);

enum { LOOP_NEVER = -1 };
/* Once, at deadline_ns (monotonic) or soon after, never before; LOOP_NEVER: not armed yet. Setting it arms it again,
 * in its own callback too. */
int loop_add_timer(struct loop *l, int64_t deadline_ns, enum loop_priority priority, loop_fn fn, void *ctx,
		   struct loop_source **ret, struct err *err) must_check;
void loop_timer_set(struct loop_source *s, int64_t deadline_ns);

/* Blocks the signal in the calling thread: call it before any other thread starts, so that all inherit that. */
int loop_add_signal(struct loop *l, int signal, loop_fn fn, void *ctx, struct loop_source **ret, struct err *err)
	must_check;

/* NULL is fine. The callback is not called any more. */
void loop_source_free(struct loop_source *s);
AUTOPTR_DEFINE(loop_source)
