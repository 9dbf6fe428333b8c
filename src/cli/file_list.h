/*
 * Which files of a folder go to a job: in a git work tree what git would not ignore, and .git itself, since builds ask
 * it for their version; in another folder the same by its .gitignore files; or everything. Sorted, so that the same
 * folder gives the same list; a few dozen bytes of memory a file, whatever its size.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

struct file_list_opts {
	const char *folder;
	bool all;	      /* whatever .gitignore files say */
	bool skip_unreadable; /* otherwise an error that names them */
	uint64_t max_bytes;   /* of all content; over it an error that names the largest folders */
	const char *max_flag; /* that raises it: for the hint */
};

struct file_list {
	struct buf names;   /* each with its NUL; relative, without "./" */
	const char **paths; /* into names; sorted, a folder before what is in it */
	size_t count;
	uint64_t bytes;	  /* of content */
	struct buf notes; /* what a person should know: whole lines, each of one remark */
	const char *hint; /* about the error; or NULL */
};
void file_list_fini(struct file_list *l);
AUTOVAR_DEFINE(file_list)

/* `ret` is all zeros; on failure its hint may be set. */
int file_list_make(const struct file_list_opts *opts, struct file_list *ret, struct err *err) must_check;
