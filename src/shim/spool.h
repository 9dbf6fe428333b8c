/*
 * A job's log lines on their way to the pipeline: a queue on disk, so that a pipeline that is away costs neither lines
 * nor memory. A folder of numbered files; each holds whole records `u32 length, u32 crc32c, payload`; a file whose
 * records are all acknowledged is removed.
 *
 * What is written survives this process; spool_sync(), once before the job's end is reported, makes it survive the
 * host. Before that nothing needs to: a shim that dies takes its VM along, the attempt is lost and runs again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "proto/log_line.h"

struct spool;

struct spool_record {
	int64_t seq;
	int64_t timestamp; /* Unix ns */
	enum log_stream stream;
	enum log_line_level level;
	struct str message; /* at most LOG_LINE_MAX bytes */
	enum log_markup markup;
};

struct spool_opts {
	int dirfd;
	const char *name;  /* of the folder in dirfd: made, or read again as another shim left it */
	int64_t max;	   /* bytes not acknowledged, after which there is no room; not a hard end */
	int64_t file_size; /* after which a new file begins; 0: 16 MiB */
};

/* A torn tail is cut off at the last whole record. */
int spool_open(const struct spool_opts *opts, struct spool **ret, struct err *err) must_check;
void spool_free(struct spool *s);
AUTOPTR_DEFINE(spool)

/* Into memory: the caller writes often, and asks for room before it takes more. */
void spool_append(struct spool *s, const struct spool_record *r);
/* What was appended, to the file. Failed (a full disk), all of it is kept: call again later. */
int spool_write(struct spool *s, struct err *err) must_check;
int spool_sync(struct spool *s, struct err *err) must_check;
bool spool_has_room(const struct spool *s);
/* Bytes not acknowledged; 0: all has arrived. */
int64_t spool_pending(const struct spool *s);
/* Of the last record; 0: there never was one. */
int64_t spool_last_seq(const struct spool *s);

typedef void (*spool_fn)(void *ctx, const struct spool_record *r);
/*
 * The oldest records not acknowledged, up to `max` bytes, at least one where one is written. *ret_bytes is what to
 * acknowledge when they have arrived; 0: there is none.
 */
int spool_read(struct spool *s, size_t max, spool_fn fn, void *ctx, int64_t *ret_bytes, struct err *err) must_check;
void spool_ack(struct spool *s, int64_t bytes);
/* Nobody will take the lines any more: those there are and those that come are counted, and forgotten. */
void spool_drop(struct spool *s);
/* Removes the folder: everything has arrived, or nobody wants it any more. */
int spool_remove(struct spool *s, struct err *err) must_check;
