/*
 * One segment on disk and its index in memory. Opening reads the headers of all blocks (and checks the whole of the
 * last one): a torn tail is cut behind the last whole block; damage in the middle, which no crash of ours makes, is
 * passed over, counted, and never cut, because good blocks stand behind it.
 *
 * Who may touch what is the owner's business (logs/store.h); nothing here locks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "logs/segment.h"

/* Where a block of lines is. */
struct segment_ref {
	uint64_t offset;
	int64_t first_seq;
	int64_t last_seq;
	int64_t least_at;
	int64_t most_at;
};

struct segment_file {
	struct segment_key key;
	int fd;	       /* -1: there is no such file yet */
	uint64_t size; /* where the next block goes */
	struct segment_ref *refs;
	size_t ref_count;
	size_t ref_cap;
	int64_t last_seq; /* 0: no lines */
	int64_t most_at;
	bool sealed;
	int64_t seal_seq; /* sealed: lines up to it are still taken; or SEGMENT_SEAL_NOW */
	bool capped;	  /* it takes no line any more, whatever is sent */
	size_t indexed;	  /* refs that the file beside it has */
	size_t damaged;	  /* stretches that were passed over */
	uint64_t cut;	  /* bytes of a torn tail */
};

/* "ORG/BUCKET/JOB-ATTEMPT.seg" below the folder of segments; a bucket is 1,024 jobs. */
enum { SEGMENT_PATH_SIZE = 96, SEGMENT_BUCKET = 1024 };
char *segment_path(const struct segment_key *key, char path[static SEGMENT_PATH_SIZE]);
/* The key whose file has this name in a bucket of org_id. */
bool segment_path_parse(int64_t org_id, const char *name, struct segment_key *ret) must_check;

/* fd is -1 where there is no file. */
int segment_file_open(int segments_fd, const struct segment_key *key, struct segment_file *ret, struct err *err)
	must_check;
void segment_file_fini(struct segment_file *f);
AUTOVAR_DEFINE(segment_file)
/* Whether nothing more will come: it is sealed and all is here, or nothing more is kept. */
bool segment_file_complete(const struct segment_file *f);
/* Writes the file beside it (logs/segment_index.h), for the next who opens it. What it covers is durable. */
int segment_file_write_index(struct segment_file *f, int segments_fd, struct err *err) must_check;
/* Removes the file, its index, and folders that are empty then. Fine where there is none. Syncs nothing. */
int segment_file_remove(int segments_fd, const struct segment_key *key, struct err *err) must_check;
/* Makes the names durable that are on the way to the file, as far as they are there. */
int segment_file_sync_names(int segments_fd, const struct segment_key *key, struct err *err) must_check;
/* Makes the file, and its folders, where it is not there. */
int segment_file_create(struct segment_file *f, int segments_fd, struct err *err) must_check;
/* What the block at the end adds. Its offset is f->size. */
void segment_file_add(struct segment_file *f, const struct segment_header *h);
/* Reads the block of `ref`, one of f->refs, as segment_decode_lines() does. `scratch` is memory to use. */
int segment_file_read(int fd, const struct segment_ref *ref, struct segment_codec *c, const struct needle *needle,
		      struct buf *scratch, struct segment_header *ret_header, struct segment_lines *ret,
		      struct err *err) must_check;
/* The index of the first ref whose last_seq is seq or later; ref_count where there is none. */
size_t segment_file_find(const struct segment_file *f, int64_t seq);

/* pwrite() and pread() of all bytes. A short read is ERR_IO. */
int segment_write_at(int fd, struct str bytes, uint64_t offset, struct err *err) must_check;
int segment_read_at(int fd, char *to, size_t len, uint64_t offset, struct err *err) must_check;
