/*
 * Tar streams: POSIX ustar with pax records (IEEE Std 1003.1, pax), and GNU's long names when reading. Headers in and
 * out; who calls moves the content, so that a file of any size takes no memory.
 *
 * What is decoded is hostile: only files, folders, symbolic and hard links come out, with paths that are relative,
 * clean and without "..". Devices, pipes, absolute paths and sparse files are errors that name the entry. Where a
 * symbolic link leads is for whoever makes it to judge: tar_link_stays(). Needs libc and base/ only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum {
	TAR_BLOCK = 512,
	TAR_PATH_MAX = 4095,	      /* bytes of a path, and of a link's target */
	TAR_RECORDS_MAX = 256 * 1024, /* the pax records before one entry */
};

enum tar_kind { TAR_FILE, TAR_FOLDER, TAR_SYMLINK, TAR_HARD_LINK };

struct tar_entry {
	enum tar_kind kind;
	const char *path;   /* "a/b"; "." is the folder itself */
	const char *target; /* of a symbolic link as it is, of a hard link a path like the above; otherwise "" */
	uint32_t mode;	    /* 07777 at most */
	int64_t mtime_ns;   /* Unix time; not before 1970 */
	uint64_t size;	    /* of a file's content; otherwise 0 */
};

/* --- writing --- */

/* What an archive can say of a time: from 1970 to 2262, whatever a file system holds. */
int64_t tar_time_ns(const struct timespec *t) must_check;

/* The headers of an entry; its content follows, then tar_padding() zeros. Owner and group are 0. ERR_TOO_LARGE: a path
 * or target is too long. */
int tar_entry_encode(const struct tar_entry *e, struct buf *out, struct err *err) must_check;
/* How many zeros follow content of that size. */
size_t tar_padding(uint64_t size);
void tar_end_encode(struct buf *out);

/* --- reading --- */

struct tar_decoder {
	int phase;
	size_t have;
	unsigned char block[TAR_BLOCK];
	uint64_t left; /* of content or records */
	size_t padding;
	char records_type;
	struct buf records;
	/* From records, for the entry that follows. */
	bool path_said, target_said, size_said, mtime_said;
	char path[TAR_PATH_MAX + 1];
	char target[TAR_PATH_MAX + 1];
	struct tar_entry entry;
};
void tar_decoder_fini(struct tar_decoder *d);
AUTOVAR_DEFINE(tar_decoder)

enum {
	TAR_ENTRY = 1, /* d->entry is the next one, good until the next call */
	TAR_BYTES = 2, /* *ret are further bytes of the file's content, within *input */
	TAR_DONE = 3,  /* that file's content is whole */
	TAR_END = 4,   /* of the archive; what follows is ignored */
};
/* Takes bytes off the front of *input and gives one of the above; 0: all is taken. A decoder of zeros is new. Negative:
 * damaged or refused, and of no more use. */
int tar_decode(struct tar_decoder *d, struct str *input, struct str *ret, struct err *err) must_check;
/* When there is no more input: ERR_INVALID where it breaks off. */
int tar_decode_end(const struct tar_decoder *d, struct err *err) must_check;

/* Whether a symbolic link at `path` (as in an entry) with that target leads to somewhere within the folder, by whatever
 * further such links. */
bool tar_link_stays(const char *path, const char *target) must_check;
