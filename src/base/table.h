/*
 * A table for people: columns as wide as their widest cell, on a terminal cut to its width and with colours where they
 * help; on a pipe the same columns whole and plain.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"

enum style { STYLE_PLAIN, STYLE_DIM, STYLE_BOLD, STYLE_GOOD, STYLE_WARN, STYLE_BAD, STYLE_BUSY };

struct screen {
	bool tty;
	bool colour;
	size_t width; /* of a terminal; SIZE_MAX on a pipe */
};
/* What standard output is. `color` is the flag: "always", "never", "auto" or NULL. Then NO_COLOR, CLICOLOR_FORCE and
 * TERM=dumb count. */
struct screen screen_find(const char *color);
/* Appends the text in its style, where there are colours. */
void screen_put(const struct screen *screen, enum style style, const char *text, struct buf *out);

struct table;
struct table *table_new(const char *const *titles, size_t columns) must_check;
void table_free(struct table *t);
AUTOPTR_DEFINE(table)

/* Fills the rows from left to right; NULL is "-". Copied; what could steer a terminal becomes '?', so that a name from
 * outside cannot. */
void table_cell(struct table *t, const char *text, enum style style);
void table_cell_i64(struct table *t, int64_t value);
/* On a terminal that is too narrow the widest columns are cut first, and end with an ellipsis. */
void table_print(const struct table *t, const struct screen *screen, struct buf *out);

/* "12s ago" or "in 3h" on a terminal, RFC 3339 elsewhere; "-" for NULL. `text` is RFC 3339. */
void put_time(const struct screen *screen, const char *text, int64_t now_at, struct buf *out);
