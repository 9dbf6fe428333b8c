/*
 * Where the lines of a job go: standard output to standard output, the rest to standard error. On a terminal they
 * cannot steer it, and colours end with the last line; on a pipe they come as the job wrote them.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "base/buf.h"
#include "cli/markup.h"
#include "proto/log_line.h"

struct output {
	bool timestamps;
	bool json; /* lines as they came, as NDJSON, all on standard output */
	struct screen screen;
	struct markup markup; /* of both: a group has lines of both */
	/* Of standard output and standard error. */
	bool clean[2];
	bool coloured[2];
	struct buf scratch;
};

/* raw: nothing is cleaned, on a terminal neither. color: the flag, or NULL. */
void output_init(struct output *o, bool raw, bool timestamps, bool json, const char *color);
/* Writes what is held back, and ends colours. */
void output_fini(struct output *o);

/* `raw_line` is the line as it came. Not flushed. */
void output_line(struct output *o, struct str raw_line, const struct log_line *line);
/* Both streams. */
void output_flush(void);
