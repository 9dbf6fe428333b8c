/*
 * How far a long transfer is, as one line on standard error that is drawn over and over: only where that is a terminal,
 * and only when it has taken 300 ms, so that what is quick says nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct progress {
	const char *what; /* "sending files" */
	uint64_t total;	  /* bytes; 0: not known */
	bool quiet;
	bool shown;
	int64_t begun_ns;
	int64_t drawn_ns;
};

void progress_begin(struct progress *p, const char *what, uint64_t total, bool quiet);
void progress_at(struct progress *p, uint64_t done);
/* Takes the line away again. */
void progress_end(struct progress *p);

/* What progress_at() draws. */
enum { PROGRESS_LINE = 160 };
void progress_line(const struct progress *p, uint64_t done, int64_t elapsed_ns, char text[static PROGRESS_LINE]);

/* "1.8 GiB". */
enum { SIZE_TEXT = 24 };
const char *size_text(uint64_t bytes, char text[static SIZE_TEXT]);
