/*
 * Commands in a log (proto/log_command.h) as a terminal shows them: groups as headings with their lines indented, what
 * was announced as an error, a warning or a notice with its place, in colour. Whatever a job wrote is cleaned
 * (base/terminal.h).
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/table.h"
#include "proto/log_line.h"

struct markup {
	bool in_group;
	bool coloured; /* a colour of the job's own may still be on */
};

/* Appends a line, or several, without the last newline. False: there is nothing to be shown of it. */
bool markup_put(struct markup *m, const struct screen *screen, const struct log_line *line, struct buf *out);
/* An error, a warning or a notice alone: "error: src/a.c:3:7: Title: text". */
void markup_put_annotation(const struct screen *screen, enum log_markup markup, struct str message, struct buf *out);
