#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/job_state.h"

struct cell {
	char *text;
	size_t width; /* characters, not bytes */
	enum style style;
};

struct table {
	const char *const *titles;
	size_t columns;
	struct cell *cells;
	size_t count;
};

static const char *const codes[] = {
	[STYLE_PLAIN] = "",	  [STYLE_DIM] = "\x1b[2m",   [STYLE_GOOD] = "\x1b[32m",
	[STYLE_BAD] = "\x1b[31m", [STYLE_BUSY] = "\x1b[36m",
};

static bool set(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0';
}

struct screen screen_find(void)
{
	const char *term = getenv("TERM");
	struct winsize size = {0};
	struct screen s = {.tty = isatty(STDOUT_FILENO) == 1, .width = SIZE_MAX};

	s.colour = set("CLICOLOR_FORCE") || (s.tty && !set("NO_COLOR") && term != NULL && strcmp(term, "dumb") != 0);
	if (s.tty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		s.width = size.ws_col;
	return s;
}

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

static size_t characters(const char *text)
{
	size_t count = 0;

	for (; *text != '\0'; text++)
		count += ((unsigned char)*text & 0xc0) != 0x80 ? 1 : 0;
	return count;
}

void table_cell(struct table *t, const char *text, enum style style)
{
	char *copy = xstrdup(text != NULL && text[0] != '\0' ? text : "-");

	for (char *c = copy; *c != '\0'; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	}
	t->cells = xreallocarray(t->cells, t->count + 1, sizeof(*t->cells));
	t->cells[t->count++] = (struct cell){copy, characters(copy), style};
}

void table_cell_i64(struct table *t, int64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRId64, value);
	table_cell(t, text, STYLE_PLAIN);
}

static size_t column_width(const struct table *t, size_t column)
{
	size_t width = characters(t->titles[column]);

	for (size_t i = column; i < t->count; i += t->columns)
		width = t->cells[i].width > width ? t->cells[i].width : width;
	return width;
}

/* At most `room` characters of it. */
static void put_cut(const char *text, size_t room, struct buf *out)
{
	struct str rest = str_c(text);

	for (; room > 0 && rest.len > 0; room--) {
		size_t step = str_utf8_step(rest);
		step = step > 0 ? step : 1;
		buf_append(out, rest.data, step);
		rest.data += step;
		rest.len -= step;
	}
}

static void put_row(const struct table *t, const struct cell *row, const size_t *widths, const struct screen *screen,
		    struct buf *out)
{
	size_t left = screen->width;

	for (size_t c = 0; c < t->columns && left > 0; c++) {
		bool last = c + 1 == t->columns;
		size_t width = row[c].width < left ? row[c].width : left;
		bool styled = screen->colour && row[c].style != STYLE_PLAIN;
		buf_puts(out, styled ? codes[row[c].style] : "");
		put_cut(row[c].text, width, out);
		buf_puts(out, styled ? "\x1b[0m" : "");
		size_t full = widths[c] + 2;
		for (size_t pad = width; !last && pad < full && pad < left; pad++)
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
		head[c].width = characters(t->titles[c]);
		head[c].style = STYLE_DIM;
	}
	put_row(t, head, widths, screen, out);
	for (size_t i = 0; i + t->columns <= t->count; i += t->columns)
		put_row(t, t->cells + i, widths, screen, out);
}

enum style state_style(const char *state)
{
	enum job_state parsed = JOB_QUEUED;

	if (job_state_parse(str_c(state), &parsed, NULL) < 0)
		return STYLE_PLAIN;
	if (parsed == JOB_SUCCEEDED)
		return STYLE_GOOD;
	if (job_state_final(parsed))
		return STYLE_BAD;
	return job_state_live(parsed) ? STYLE_BUSY : STYLE_PLAIN;
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
	int64_t seconds = now_at > at ? (now_at - at) / NS_PER_S : 0;
	size_t i = 0;
	while (i + 1 < ARRAY_LEN(units) && seconds < units[i].seconds)
		i++;
	buf_printf(out, "%" PRId64 "%s ago", seconds / units[i].seconds, units[i].unit);
}
