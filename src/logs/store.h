/*
 * The log store: lines in, durable before the answer; lines out, by number. Files below one folder: segments/ (one
 * for each org, job and attempt), journal/, and a lock, because there is one writer. Safe in threads.
 *
 * A line is (job, attempt, seq), seq from 1 without gaps. A batch may begin with lines that are stored already: they
 * are passed over, so a batch can be sent again, whole or in part, until it is acknowledged. It may not leave a gap:
 * ERR_CONFLICT says which line is next, and nothing of the batch is stored. Lines of attempt 0 (the seeds' entries)
 * carry no seq; the store numbers them as they come, and cannot know them again.
 *
 * A sealed attempt takes lines up to the seal's last_seq, all others get ERR_SEALED.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "logs/attempts.h"
#include "logs/segment.h"
#include "proto/log_line.h"

struct log_store;

struct log_store_opts {
	const char *path;  /* made where it is missing */
	uint64_t min_free; /* bytes of disk space; at most a sixteenth of the disk is kept free */
	size_t open_max;   /* attempts with an open file; 0: 2,048, or a quarter of the files this process may have */
	uint64_t journal_max; /* 0: 64 MiB */
	uint64_t attempt_max; /* packed bytes of one attempt; then its log ends with a line that says so. 0: no bound */
	/* Lines or a seal were added. In the thread of the call that added them. May be NULL. */
	void (*changed)(void *ctx, const struct segment_key *key);
	/* The disk failed: nothing is taken any more, and the role should end. From a thread of the store. */
	void (*failed)(void *ctx, const struct err *err);
	void *ctx;
	/* For tests; NULL: fdatasync() and disk_free(). */
	int (*sync)(int fd);
	int (*disk_free)(int fd, uint64_t *ret, struct err *err);
};

/* What was found at the start. */
struct log_store_recovery {
	size_t journals; /* 0 after a clean end */
	size_t blocks;
	uint64_t torn;
};

int log_store_open(const struct log_store_opts *opts, struct log_store **ret, struct log_store_recovery *recovery,
		   struct err *err) must_check;
/* No call is under way any more. An error says why the next start has to replay a journal; nothing is lost. */
int log_store_close(struct log_store *s, struct err *err);
/* As log_store_close() for who does not care. */
void log_store_free(struct log_store *s);
AUTOPTR_DEFINE(log_store)

/* Of one batch: each holds a file open, and those of all organisations share the descriptors. */
enum { LOG_STORE_ATTEMPTS_MAX = 256 };

struct log_append {
	size_t stored;
	size_t repeated; /* were there already */
	size_t cut;	 /* behind the attempt's bound: not kept, and not to be sent again */
};
/* All or nothing, for lines of any jobs of one org; org_id of the lines is not looked at, a missing timestamp becomes
 * now. Changes and reorders `lines`. */
int log_store_append(struct log_store *s, int64_t org_id, struct log_line *lines, size_t count, struct log_append *ret,
		     struct err *err) must_check;
/* last_seq SEGMENT_SEAL_NOW: no line more. The first seal stands; further ones change nothing. */
int log_store_seal(struct log_store *s, const struct segment_key *key, int64_t last_seq, struct err *err) must_check;

/* What may be dropped of an attempt. */
enum log_drop {
	LOG_DROP_ALL,	   /* whatever there is; one that goes on keeps the number of its lines, nothing else */
	LOG_DROP_FINISHED, /* nothing of one that may still be sent lines */
};
enum { LOG_STORE_KEPT = 1 };
/* Durable, but not yet out of the journal: log_store_flush(). An attempt that is not complete counts as finished when
 * nothing was written to it since idle_before_at (Unix ns). LOG_STORE_KEPT: it may not go, or is not there. *ret_bytes:
 * of its segment. */
int log_store_drop(struct log_store *s, const struct segment_key *key, enum log_drop what, int64_t idle_before_at,
		   uint64_t *ret_bytes, struct err *err) must_check;
/* When it returns, what was dropped before is in no file any more. */
int log_store_flush(struct log_store *s, struct err *err) must_check;

int log_store_state(struct log_store *s, const struct segment_key *key, struct attempt_state *ret, struct err *err)
	must_check;

/* Memory of a reader, kept from one block to the next. */
struct log_reader {
	struct segment_header block; /* the one read last */
	struct segment_lines lines;  /* of it, as segment_decode_lines() gives them; their text lies in here too */
	struct buf scratch;
};
void log_reader_fini(struct log_reader *r);
AUTOVAR_DEFINE(log_reader)

enum { LOG_STORE_END = 1 };
/* Reads the block that attempts_find() finds. LOG_STORE_END: there is none. needle: as segment_decode_lines(). */
int log_store_read(struct log_store *s, const struct segment_key *key, const struct attempts_seek *seek,
		   const struct needle *needle, struct log_reader *r, struct err *err) must_check;
/* attempts_bound(). LOG_STORE_END: there is nothing to find. */
int log_store_bound(struct log_store *s, const struct segment_key *key, const struct attempts_seek *seek,
		    int64_t *ret_at, struct err *err) must_check;

/* One stored attempt, as the folder shows it. */
struct log_entry {
	struct segment_key key;
	int64_t changed_at; /* Unix ns; when it was written to */
	uint64_t bytes;
};
struct log_list {
	struct log_entry *items;
	size_t count;
	size_t cap;
};
void log_list_fini(struct log_list *l);
AUTOVAR_DEFINE(log_list)
/* Of one job, or with job_id 0 of the whole organisation; in no order. */
int log_store_list(struct log_store *s, int64_t org_id, int64_t job_id, struct log_list *ret, struct err *err)
	must_check;

/* Organisations that have logs; the caller frees the array. */
int log_store_orgs(struct log_store *s, int64_t **ret, size_t *ret_count, struct err *err) must_check;

/* ERR_DISK_FULL where the next batch would be refused. */
int log_store_check_room(struct log_store *s, struct err *err) must_check;

struct log_store_counts {
	uint64_t groups;  /* writes to the journal */
	uint64_t bytes;	  /* packed */
	uint64_t refused; /* batches, for a full disk */
	size_t waiting;	  /* batches now */
};
struct log_store_counts log_store_counts(struct log_store *s);
