/*
 * A folder as a tar stream, pulled piece by piece: what goes to a job. Takes a few pages of memory and the list of its
 * files' names, whatever its size. Owner and group are 0, times are kept, the order is that of the list.
 *
 * Files may change meanwhile: what has gone away is left out, what has become shorter is filled up with zeros, of what
 * has grown the first part goes; each with a note.
 */
#pragma once

#include "cli/file_list.h"

struct pack;

/* Borrows the list, and reads from its folder. */
int pack_new(const char *folder, const struct file_list *list, struct pack **ret, struct err *err) must_check;
/* One file alone, under that name. */
int pack_new_file(const char *path, const char *name, struct pack **ret, struct err *err) must_check;
void pack_free(struct pack *p);
AUTOPTR_DEFINE(pack)

/* The next bytes; *ret_len is 0 at the end, else up to `cap`. */
int pack_read(struct pack *p, char *to, size_t cap, size_t *ret_len, struct err *err) must_check;
/* From the beginning again: for a second attempt. */
void pack_rewind(struct pack *p);
/* So far; of content and headers. */
uint64_t pack_bytes(const struct pack *p);
/* Whole lines, what changed meanwhile. */
const struct buf *pack_notes(const struct pack *p);
