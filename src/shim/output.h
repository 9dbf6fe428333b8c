/*
 * From the bytes that a job writes to the lines of its log: commands found (proto/log_command.h), secrets masked, split
 * into lines, numbered, appended to the spool. Nothing that was not masked leaves this module.
 *
 * A line ends with its newline or with its stream; one longer than LOG_LINE_MAX is split. What is masked after a line
 * began stays visible in what was given out of it before.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/str.h"
#include "proto/log_line.h"
#include "shim/spool.h"

struct output;

/* Numbering goes on behind what the spool holds; the spool outlives it. */
struct output *output_new(struct spool *spool) must_check;
void output_free(struct output *o);
AUTOPTR_DEFINE(output)

/* Masks the value from now on in both streams. One that cannot be masked is named in a line of its own. */
void output_mask(struct output *o, const char *name, struct str value);
/* Bytes of LOG_STREAM_STDOUT or LOG_STREAM_STDERR, cut anywhere. */
void output_feed(struct output *o, enum log_stream stream, struct str bytes);
/* The stream has ended: its last line needs no newline. Twice is fine. */
void output_end(struct output *o, enum log_stream stream);
/* A remark of Nimbus in the job's log, masked like everything. */
void output_note(struct output *o, enum log_line_level level, const char *fmt, ...) printf_like(3, 4);
