/*
 * A bounded first-in-first-out queue of pointers between threads: the only way work is handed over. A mutex and two
 * condition variables on the monotonic clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct queue;

struct queue *queue_new(size_t capacity) must_check;
/* Nobody waits in it any more; the caller has popped what is its own. */
void queue_free(struct queue *q);
AUTOPTR_DEFINE(queue)

/* False when it is full or closed: the caller sheds the work and says so. Never blocks. */
bool queue_try_push(struct queue *q, void *item) must_check;
/* Waits for room until deadline_ns (monotonic); false when there was none, or it was closed. */
bool queue_push(struct queue *q, void *item, int64_t deadline_ns) must_check;
/* Waits for an item until deadline_ns (INT64_MAX: for ever). NULL at the deadline, or closed and empty. */
void *queue_pop(struct queue *q, int64_t deadline_ns) must_check;
/* Up to `max` items at once, waiting for the first; 0 at the deadline, or closed and empty. */
size_t queue_pop_many(struct queue *q, void **items, size_t max, int64_t deadline_ns) must_check;
/* Nothing goes in any more; what is in still comes out. */
void queue_close(struct queue *q);
size_t queue_len(struct queue *q);
