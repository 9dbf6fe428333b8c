/*
 * A tar stream of a job into a folder of ours: what --output and -v bring back. The job may be anybody's: nothing is
 * written outside of the folder, through links neither, and no link is made that leads out of it, or of what was asked
 * for where that is less; hard links are refused. Each file is written beside its place and renamed, so that it is
 * there whole or as it was; set-user-id bits do not come back. What the folder has and the tar does not is left alone.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct extract_opts {
	const char *folder; /* made where it is not there */
	const char *only;   /* refuse all but this entry and what is below it; NULL: any */
	const char *as;	    /* and call it so; NULL: as it is called */
};

struct extract;

int extract_new(const struct extract_opts *opts, struct extract **ret, struct err *err) must_check;
void extract_free(struct extract *x);
AUTOPTR_DEFINE(extract)

int extract_feed(struct extract *x, struct str bytes, struct err *err) must_check;
/* When there are no more bytes. The error may be about links that were left out, which it names; all else is there. */
int extract_end(struct extract *x, struct err *err) must_check;
/* Files, and bytes in them. */
uint64_t extract_files(const struct extract *x);
uint64_t extract_bytes(const struct extract *x);
