/*
 * Extended attributes of what an image is made of: which of them it keeps, and those that one entry has. Kept are file
 * capabilities and what users attach (user.*). The rest belongs to the system that it comes from (labels, signatures,
 * access lists, what overlayfs notes for itself), would mean something else in a VM, and is left out by name.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/str.h"

struct xattr {
	const char *name;
	struct str value;
};
/* Sorted by name, each once. */
struct xattrs {
	const struct xattr *items;
	size_t count;
};

/* What came from one layer and is not kept: for each name how many entries had it, and the first of them. */
struct xattrs_dropped {
	char *name;
	char *first;
	size_t count;
};
struct xattrs_left_out {
	struct xattrs_dropped *items;
	size_t count;
};
void xattrs_left_out_fini(struct xattrs_left_out *l);
AUTOVAR_DEFINE(xattrs_left_out)

/* Gathers those of one entry, in any order. */
struct xattrs_reader {
	const char *path; /* of the entry, for messages */
	mode_t mode;
	struct arena *arena; /* where the kept ones go */
	struct xattrs_left_out *left_out;
	size_t *used; /* bytes of all entries so far, which is bounded */
	struct xattr *items;
	size_t count;
};
/* Whether an image keeps that one on an entry of that kind. */
bool xattrs_keeps(mode_t mode, const char *name);
/* Keeps it or notes that it does not. ERR_INVALID: damaged, or a capability that only another user namespace knows. */
int xattrs_take(struct xattrs_reader *r, const char *name, struct str value, struct err *err) must_check;
/* Frees what the reader holds, whatever came of it; *ret lies in the arena. */
struct xattrs xattrs_finish(struct xattrs_reader *r);

/* Those of a file or folder as it lies on a disk. What the disk's own system put there for itself is passed over. */
int xattrs_read_fd(struct xattrs_reader *r, int fd, struct err *err) must_check;

/* Nothing where there are none. */
void xattrs_hash(const struct xattrs *x, struct crypto_hash *hash);
