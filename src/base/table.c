#include "base/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/width.h"

/* Narrower no column is made for the sake of the others. */
enum { COLUMN_KEPT = 12 };
#define ELLIPSIS "\xe2\x80\xa6"

struct cell {
	char *text;
	size_t width; /* columns, not bytes */
	enum style style;
};

struct table {
	const char *const *titles;
	size_t columns;
	struct cell *cells;
	size_t count;
};

static const char *const codes[] = {
	[STYLE_PLAIN] = "",	   [STYLE_DIM] = "\x1b[2m",  [STYLE_BOLD] = "\x1b[1m",	[STYLE_GOOD] = "\x1b[32m",
	[STYLE_WARN] = "\x1b[33m", [STYLE_BAD] = "\x1b[31m", [STYLE_BUSY] = "\x1b[36m",
};

/* --- the screen --- */

static bool set(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0';
}

static bool wants_colour(const char *color, bool tty)
{
	const char *term = getenv("TERM");
	const char *force = getenv("CLICOLOR_FORCE");

	if (color != NULL && strcmp(color, "auto") != 0)
		return strcmp(color, "always") == 0;
	if (set("NO_COLOR"))
		return false;
	if (force != NULL && force[0] != '\0' && strcmp(force, "0") != 0)
		return true;
	return tty && term != NULL && strcmp(term, "dumb") != 0;
}

struct screen screen_find(const char *color)
{
	struct winsize size = {0};
	struct screen s = {.tty = isatty(STDOUT_FILENO) == 1, .width = SIZE_MAX};

	s.colour = wants_colour(color, s.tty);
	if (s.tty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		s.width = size.ws_col;
	return s;
}

void screen_put(const struct screen *screen, enum style style, const char *text, struct buf *out)
{
	bool styled = screen->colour && style != STYLE_PLAIN;

	buf_printf(out, "%s%s%s", styled ? codes[style] : "", text, styled ? "\x1b[0m" : "");
}

/* --- cells --- */

struct table *table_new(const char *const *titles, size_t columns)
{
	struct table *t = xcalloc(1, sizeof(*t));

	t->titles = titles;
	t->columns = columns;
	return t;
}

void table_free(struct table *t)
{
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->count; i++)
		free(t->cells[i].text);
	free(t->cells);
	free(t);
}

static char *harmless(const char *text)
{
	struct str rest = str_c(text);
	autovar(buf) out = {0};

	while (rest.len > 0) {
		size_t bytes = str_utf8_step(rest);
		bool fine = bytes > 0 && width_of_character((struct str){rest.data, bytes}) >= 0;
		bytes = bytes > 0 ? bytes : 1;
		if (fine)
			buf_append(&out, rest.data, bytes);
		else
			buf_putc(&out, '?');
		rest.data += bytes;
		rest.len -= bytes;
	}
	return buf_take(&out);
}

void table_cell(struct table *t, const char *text, enum style style)
{
	char *copy = harmless(text != NULL && text[0] != '\0' ? text : "-");

	t->cells = xreallocarray(t->cells, t->count + 1, sizeof(*t->cells));
	t->cells[t->count++] = (struct cell){copy, width_of_text(str_c(copy)), style};
}

void table_cell_i64(struct table *t, int64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRId64, value);
	table_cell(t, text, STYLE_PLAIN);
}

/* --- printing --- */

static size_t column_width(const struct table *t, size_t column)
{
	size_t width = width_of_text(str_c(t->titles[column]));

	for (size_t i = column; i < t->count; i += t->columns)
		width = t->cells[i].width > width ? t->cells[i].width : width;
	return width;
}

/* The widest column gives first, down to its title and COLUMN_KEPT. What does not fit even so is cut off at the edge.
 */
static void fit(const struct table *t, size_t room, size_t *widths)
{
	size_t total = 2 * (t->columns - 1);

	for (size_t c = 0; c < t->columns; c++)
		total += widths[c];
	while (total > room) {
		size_t widest = t->columns;
		for (size_t c = 0; c < t->columns; c++) {
			bool gives = widths[c] > COLUMN_KEPT && widths[c] > width_of_text(str_c(t->titles[c]));
			if (gives && (widest == t->columns || widths[c] > widths[widest]))
				widest = c;
		}
		if (widest == t->columns)
			return;
		widths[widest]--;
		total--;
	}
}

/* Gives how many columns it took. */
static size_t put_cell(const struct cell *cell, size_t column, size_t left, const struct screen *screen,
		       struct buf *out)
{
	struct str text = str_c(cell->text);
	size_t room = column < left ? column : left;
	bool cut = cell->width > column && room > 1;
	autovar(buf) shown = {0};

	buf_append(&shown, text.data, width_cut(text, cut ? room - 1 : room));
	size_t taken = width_of_text(buf_str(&shown)) + (cut ? 1 : 0);
	buf_puts(&shown, cut ? ELLIPSIS : "");
	screen_put(screen, cell->style, shown.data != NULL ? shown.data : "", out);
	return taken;
}

static void put_row(const struct table *t, const struct cell *row, const size_t *widths, const struct screen *screen,
		    struct buf *out)
{
	size_t left = screen->width;

	for (size_t c = 0; c < t->columns && left > 0; c++) {
		bool last = c + 1 == t->columns;
		size_t taken = put_cell(&row[c], widths[c], left, screen, out);
		size_t full = widths[c] + 2;
		for (size_t pad = taken; !last && pad < full && pad < left; pad++)
			buf_putc(out, ' ');
		left -= full < left ? full : left;
	}
	while (out->len > 0 && out->data[out->len - 1] == ' ')
		out->len--;
	buf_putc(out, '\n');
}

void table_print(const struct table *t, const struct screen *screen, struct buf *out)
{
	autofree size_t *widths = xcalloc(t->columns, sizeof(*widths));
	autofree struct cell *head = xcalloc(t->columns, sizeof(*head));

	for (size_t c = 0; c < t->columns; c++) {
		widths[c] = column_width(t, c);
		head[c].text = (char *)(uintptr_t)t->titles[c];
		head[c].width = width_of_text(str_c(t->titles[c]));
		head[c].style = STYLE_DIM;
	}
	fit(t, screen->width, widths);
	put_row(t, head, widths, screen, out);
	for (size_t i = 0; i + t->columns <= t->count; i += t->columns)
		put_row(t, t->cells + i, widths, screen, out);
}

void put_time(const struct screen *screen, const char *text, int64_t now_at, struct buf *out)
{
	static const struct {
		int64_t seconds;
		const char *unit;
	} units[] = {{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}};
	int64_t at = 0;

	if (text == NULL) {
		buf_putc(out, '-');
		return;
	}
	if (!screen->tty || clock_parse(str_c(text), &at, NULL) < 0) {
		buf_puts(out, text);
		return;
	}
	bool past = now_at >= at;
	int64_t seconds = (past ? now_at - at : at - now_at) / NS_PER_S;
	size_t i = 0;
	while (i + 1 < ARRAY_LEN(units) && seconds < units[i].seconds)
		i++;
	buf_printf(out, "%s%" PRId64 "%s%s", past ? "" : "in ", seconds / units[i].seconds, units[i].unit,
		   past ? " ago" : "");
}
