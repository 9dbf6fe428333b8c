#include "cli/markup.h"

#include <inttypes.h>

#include "base/terminal.h"
#include "proto/log_command.h"

/* Continued lines of a command stand below its first. */
static void put_clean(struct str escaped, bool property, const char *indent, struct buf *out)
{
	autovar(buf) text = {0};

	log_command_unescape(escaped, property, &text);
	struct str rest = buf_str(&text);
	for (bool first = true; rest.data != NULL; first = false) {
		struct str line = str_cut(&rest, '\n');
		if (!first)
			buf_printf(out, "\n%s", indent);
		(void)terminal_clean(line, false, out);
	}
}

static void put_place(const struct log_command *c, struct buf *out)
{
	if (c->file.len == 0)
		return;
	put_clean(c->file, true, "", out);
	if (c->line > 0)
		buf_printf(out, ":%" PRId64, c->line);
	if (c->line > 0 && c->col > 0)
		buf_printf(out, ":%" PRId64, c->col);
	buf_puts(out, ": ");
}

static enum style style_of(enum log_markup markup)
{
	if (markup == LOG_MARKUP_ERROR)
		return STYLE_BAD;
	if (markup == LOG_MARKUP_WARNING)
		return STYLE_WARN;
	return markup == LOG_MARKUP_NOTICE ? STYLE_BUSY : STYLE_DIM;
}

void markup_put_annotation(const struct screen *screen, enum log_markup markup, struct str message, struct buf *out)
{
	struct log_command c = {0};
	autovar(buf) text = {0};

	buf_printf(&text, "%s: ", log_markup_name(markup));
	if (log_command_parse(message, &c)) {
		put_place(&c, &text);
		if (c.title.len > 0) {
			put_clean(c.title, true, "  ", &text);
			buf_puts(&text, ": ");
		}
		put_clean(c.data, false, "  ", &text);
	} else {
		(void)terminal_clean(message, false, &text);
	}
	screen_put(screen, style_of(markup), text.data, out);
}

static void put_heading(const struct screen *screen, struct str message, struct buf *out)
{
	struct log_command c = {0};
	autovar(buf) text = {0};

	buf_puts(&text, "\xe2\x96\xbe "); /* a small triangle that points down */
	if (log_command_parse(message, &c))
		put_clean(c.data, false, "  ", &text);
	screen_put(screen, STYLE_BOLD, text.data, out);
}

bool markup_put(struct markup *m, const struct screen *screen, const struct log_line *line, struct buf *out)
{
	const char *indent = m->in_group ? "  " : "";

	switch (line->markup) {
	case LOG_MARKUP_GROUP:
		m->in_group = true;
		put_heading(screen, line->message, out);
		return true;
	case LOG_MARKUP_ENDGROUP:
		m->in_group = false;
		return false;
	case LOG_MARKUP_ADD_MASK:
	case LOG_MARKUP_STOP:
	case LOG_MARKUP_RESUME:
		return false;
	case LOG_MARKUP_ERROR:
	case LOG_MARKUP_WARNING:
	case LOG_MARKUP_NOTICE:
	case LOG_MARKUP_DEBUG:
		buf_puts(out, indent);
		markup_put_annotation(screen, line->markup, line->message, out);
		return true;
	case LOG_MARKUP_NONE:
	case LOG_MARKUP_COUNT:
		break;
	}
	buf_puts(out, indent);
	m->coloured = terminal_clean(line->message, true, out) || m->coloured;
	return true;
}
