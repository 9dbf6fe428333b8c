/*
 * The committer: one thread that makes batches durable. It takes all that wait, writes their blocks to the journal
 * with one write and one fdatasync, then to their segments, where readers find them. While it syncs the next ones
 * gather, so a group is as large as the disk is slow, and nothing waits for a timer.
 *
 * Why a journal: a sync for each touched segment costs as many syncs as there are busy jobs (see logs/journal.h). The
 * price is that packed bytes, a tenth of what came, are written twice. A second thread syncs the segments of a full
 * journal, in the background, and removes it.
 *
 * A full disk is found before anything is promised, and passes. A sync that fails is the end: what the kernel then
 * still holds is unknown, so the committer refuses everything from there on and says so once.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "logs/attempts.h"

struct committer;

struct committer_opts {
	struct attempts *attempts; /* borrowed */
	int journal_fd;		   /* folder; borrowed */
	uint64_t generation;	   /* of the first journal */
	uint64_t journal_max;	   /* bytes; then the next one */
	size_t dirty_max;	   /* attempts; then the next one too */
	uint64_t min_free;	   /* bytes of disk space that are never touched */
	/* The system's, or a test's. */
	int (*sync)(int fd);
	int (*disk_free)(int fd, uint64_t *ret, struct err *err);
	/* Called once, from a thread of the committer's. May be NULL. */
	void (*failed)(void *ctx, const struct err *err);
	void *ctx;
};

int committer_new(const struct committer_opts *opts, struct committer **ret, struct err *err) must_check;
/* Nobody is in committer_commit() any more. Syncs the segments, so that no journal is left; *err says why one is. */
int committer_stop(struct committer *c, struct err *err) must_check;
void committer_free(struct committer *c);
AUTOPTR_DEFINE(committer)

/* Blocks that follow one another in one segment, whose owner the caller is. */
struct commit_part {
	struct attempt *attempt;
	uint64_t offset;
	struct str blocks;
	const struct segment_header *drop; /* NULL; else `blocks` are these marks, and attempts_drop() happens */
	size_t drop_count;
};

/* Blocks until all parts are durable, and where readers look. ERR_DISK_FULL: nothing was kept. */
int committer_commit(struct committer *c, const struct commit_part *parts, size_t count, struct err *err) must_check;

/* Blocks until everything that was committed before is in the segments alone, durably, and no journal has it: so what
 * was dropped is nowhere any more. ERR_DISK_FULL: not now. */
int committer_flush(struct committer *c, struct err *err) must_check;

/* ERR_DISK_FULL where the next batch would be refused. */
int committer_check_room(struct committer *c, struct err *err) must_check;

struct committer_counts {
	uint64_t groups;
	uint64_t bytes;
	uint64_t refused; /* batches, for a full disk */
	size_t waiting;	  /* batches now */
};
struct committer_counts committer_counts(struct committer *c);
