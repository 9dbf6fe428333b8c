/*
 * The open attempts: segments with their index in memory, found by key, the least recently used closed when there are
 * too many. Safe in threads.
 *
 * Whoever uses an attempt holds a reference. Whoever adds to one owns it, alone, from looking at its last line until
 * the block is durable: a batch is checked, numbered and packed against a state that cannot move meanwhile. What was
 * written since the last sync is dirty, and a dirty attempt stays open.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "logs/segment.h"
#include "logs/segment_file.h"

struct attempts;

struct attempt {
	/* The table's; all but `key` under its lock. */
	struct segment_key key;
	struct attempt *next;	       /* of the same hash */
	struct attempt *newer, *older; /* by last use */
	unsigned refs;
	bool loading;
	bool broken; /* it could not be loaded, or was dropped, and is no longer in the table */
	bool owned;
	bool dirty;
	bool fresh; /* the file's name is not durable yet */
	/* Changed by the owner, through attempts_create() and attempts_add(); the owner reads it without the lock. */
	struct segment_file file;
};

typedef int (*attempts_sync_fn)(int fd);

struct attempts *attempts_new(int segments_fd, size_t open_max) must_check;
/* Nobody has a reference any more. */
void attempts_free(struct attempts *as);
AUTOPTR_DEFINE(attempts)

/* Loads it where it is not open; it may have no file. */
int attempts_get(struct attempts *as, const struct segment_key *key, struct attempt **ret, struct err *err) must_check;
void attempts_put(struct attempts *as, struct attempt *a);

/* Waits until it is the caller's. Several are owned in the order of their keys. */
void attempts_own(struct attempts *as, struct attempt *a);
void attempts_disown(struct attempts *as, struct attempt *a);
/* The owner's: makes the file where there is none. */
int attempts_create(struct attempts *as, struct attempt *a, struct err *err) must_check;
/* The owner's: blocks that are durable now, for readers to see. */
void attempts_add(struct attempts *as, struct attempt *a, const struct segment_header *headers, size_t count);

/* The owner's, from the one thread that writes segments: what is in the segment is gone, its file too; who reads it now
 * reads on in what was. `a` is out of the table, and broken, whoever owns it next. With the marks (the first
 * is the drop; its last_seq > 0) begins a new segment, whose file *ret_fd is open for them; else -1. */
int attempts_drop(struct attempts *as, struct attempt *a, const struct segment_header *marks, size_t count, int *ret_fd,
		  struct err *err) must_check;
/* The owner's. */
bool attempts_dropped(struct attempts *as, const struct attempt *a) must_check;

/* The segment was written to. */
void attempts_dirty(struct attempts *as, struct attempt *a);
size_t attempts_dirty_count(struct attempts *as);
/* Makes durable all that was written before the call. */
int attempts_sync(struct attempts *as, attempts_sync_fn sync, struct err *err) must_check;

/* What readers see. */
struct attempt_state {
	bool exists;
	bool sealed;
	bool complete; /* sealed, and all lines are here that will ever be */
	bool capped;   /* some are not, because it grew too large */
	int64_t last_seq;
	int64_t most_at;
	size_t damaged;
	uint64_t cut;
};
struct attempt_state attempts_state(struct attempts *as, const struct attempt *a);

/* The nearest block with lines from `seq` on (backward: up to `seq`) that may have one from since_at to until_at. */
struct attempts_seek {
	int64_t seq;
	bool backward;
	int64_t since_at;
	int64_t until_at;
};
bool attempts_find(struct attempts *as, const struct attempt *a, const struct attempts_seek *seek,
		   struct segment_ref *ret) must_check;
/* The latest time (forward: the earliest) that a line of a block may have which attempts_find() finds, now or further
 * on; within the seek's times. */
bool attempts_bound(struct attempts *as, const struct attempt *a, const struct attempts_seek *seek, int64_t *ret_at)
	must_check;
