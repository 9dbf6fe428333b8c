/*
 * Waits that hold no thread: records in lists, one heap of deadlines, one epoll that watches the sockets for hang-ups
 * (a suspended connection is watched by nobody else), one thread for both. Knows nothing of requests: a record is
 * embedded in whatever waits.
 *
 * One mutex guards all of it. `ready` is called with it held, once per wait, and hands the record on.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct http_waits;
struct http_wait_list;

/* --- lists: woken as one --- */

/* Nobody waits in it any more. */
void http_wait_list_free(struct http_wait_list *list);
AUTOPTR_DEFINE(http_wait_list)
/* Called with the lock of all waits held: it may not wait. True wakes that one. */
typedef bool http_match_fn(void *match_ctx, const void *tag);
/* Wakes up to `max` whose tag matches (NULL: all), the longest waiting first; gives how many. From any thread. */
size_t http_wait_wake(struct http_wait_list *list, size_t max, http_match_fn *match, void *match_ctx);
size_t http_wait_count(struct http_wait_list *list);

/* --- all waits of a server --- */

enum http_wait_end {
	HTTP_WAIT_WOKEN,
	HTTP_WAIT_DEADLINE,
	HTTP_WAIT_GONE,	   /* the peer hung up */
	HTTP_WAIT_STOPPED, /* http_waits_stop() */
};

/* All zeros to begin with. Outside of a wait, its owner's; in one, guarded by the mutex. */
struct http_waiter {
	/* Set by the owner before http_waits_enter(). */
	struct http_wait_list *list; /* NULL: only the deadline, the hang-up and the stop end it */
	const void *tag;
	int64_t deadline_ns;
	int fd;

	struct http_waiter *prev;
	struct http_waiter *next;
	size_t heap_at;
	uint32_t serial;
	enum http_wait_end end; /* why it ended */
};

typedef void http_ready_fn(struct http_waiter *waiter);

struct http_waits *http_waits_new(http_ready_fn *ready) must_check;
int http_waits_start(struct http_waits *w, struct err *err) must_check;
/* Ends all waits; further ones end at once. Its thread still runs. */
void http_waits_stop(struct http_waits *w);
/* Joins the thread. */
void http_waits_free(struct http_waits *w);
AUTOPTR_DEFINE(http_waits)

/* A moment in the order of wake-ups: taken before looking at what may make waiting needless. */
uint64_t http_waits_now(struct http_waits *w);
/*
 * True: it waits, and belongs to `waits` until `ready`, which may come before this returns. False: it does not, because
 * its list was woken since `since`, its deadline has passed or all has stopped; waiter->end says which.
 */
bool http_waits_enter(struct http_waits *w, struct http_waiter *waiter, uint64_t since) must_check;
size_t http_waits_count(struct http_waits *w);

struct http_wait_list *http_waits_list_new(struct http_waits *w) must_check;
