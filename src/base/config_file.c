#include "base/config_file.h"

#include <stdbool.h>

#include "base/config.h"
#include "base/mem.h"
#include "base/secret.h"

struct reader {
	struct str rest;
	size_t line;
	const char *path;
};

static int peek(const struct reader *r)
{
	return r->rest.len > 0 ? (unsigned char)r->rest.data[0] : -1;
}

static int next(struct reader *r)
{
	int c = peek(r);

	if (c >= 0) {
		r->rest.data++;
		r->rest.len--;
	}
	if (c == '\n')
		r->line++;
	return c;
}

static bool blank(int c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Blank lines, comments (which a backslash continues, as everything), and the space before a name. */
static void skip_to_name(struct reader *r)
{
	for (;;) {
		while (blank(peek(r)) || peek(r) == '\n')
			(void)next(r);
		if (peek(r) != '#' && peek(r) != ';')
			return;
		for (int c = next(r); c >= 0 && c != '\n'; c = next(r)) {
			if (c == '\\')
				(void)next(r);
		}
	}
}

static bool name_char(int c, bool first)
{
	return c == '_' || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (!first && c >= '0' && c <= '9');
}

static int read_name(struct reader *r, struct str *ret, struct err *err)
{
	struct str name = {r->rest.data, 0};

	while (name_char(peek(r), name.len == 0)) {
		(void)next(r);
		name.len++;
	}
	if (name.len == 0 || peek(r) != '=')
		return err_set(err, ERR_INVALID, "%s:%zu: expected NAME=value", r->path, r->line);
	(void)next(r);
	*ret = name;
	return 0;
}

/* After the opening quote, to the closing one. In double quotes a backslash takes the meaning of \ " $ ` and joins
 * lines. */
static int read_quoted(struct reader *r, int quote, struct buf *out, struct err *err)
{
	size_t opened = r->line;

	for (int c = next(r); c != quote; c = next(r)) {
		if (c < 0)
			return err_set(err, ERR_INVALID, "%s:%zu: a quote is opened and never closed", r->path, opened);
		if (c == '\\' && quote == '"') {
			c = next(r);
			if (c == '\n')
				continue;
			if (c != '"' && c != '\\' && c != '$' && c != '`')
				buf_putc(out, '\\');
			if (c < 0)
				continue;
		}
		buf_putc(out, (char)c);
	}
	return 0;
}

void config_write_line(const char *name, const char *value, struct buf *out)
{
	buf_printf(out, "%s=\"", name);
	for (; *value != '\0'; value++) {
		if (strchr("\"\\$`", *value) != NULL)
			buf_putc(out, '\\');
		buf_putc(out, *value);
	}
	buf_puts(out, "\"\n");
}

/* To the end of the line: quoted pieces, then bare text, in which a quote is a character like any other (so that a JSON
 * list needs no quotes). Space around the value does not belong to it. */
static int read_value(struct reader *r, struct buf *out, struct err *err)
{
	bool bare = false;
	size_t keep = 0; /* bytes that trailing space does not take away */
	int rc = 0;

	for (int c = next(r); c >= 0 && c != '\n' && rc == 0; c = next(r)) {
		if (!bare && (c == '\'' || c == '"')) {
			rc = read_quoted(r, c, out, err);
			keep = out->len;
			continue;
		}
		if (!bare && blank(c))
			continue;
		bool space = blank(c);
		if (c == '\\') {
			c = next(r);
			if (c == '\n' || c < 0)
				continue;
		}
		bare = true;
		buf_putc(out, (char)c);
		keep = space ? keep : out->len;
	}
	if (out->data != NULL) {
		out->len = keep;
		out->data[keep] = '\0';
	}
	return rc;
}

static int parse_line(const struct config_file *f, struct reader *r, struct err *err)
{
	autofree char *origin = xasprintf("%s:%zu", r->path, r->line);
	autovar(buf) value = {0};
	struct str name = {0};

	int rc = read_name(r, &name, err);
	if (rc < 0) {
		while (peek(r) >= 0 && next(r) != '\n')
			;
		return f->problem(f->ctx, rc, err);
	}
	rc = f->problem(f->ctx, read_value(r, &value, err), err);
	if (rc == 0)
		rc = f->assign(f->ctx, name, buf_str(&value), origin, err);
	secret_wipe(value.data, value.len);
	return rc;
}

int config_file_parse(const struct config_file *f, const char *path, struct str text, struct err *err)
{
	struct reader r = {.rest = text, .line = 1, .path = path};
	int rc = 0;

	if (!str_is_utf8(text))
		return err_set(err, ERR_INVALID, "%s: is not UTF-8 text", path);
	for (skip_to_name(&r); r.rest.len > 0 && rc == 0; skip_to_name(&r))
		rc = parse_line(f, &r, err);
	return rc;
}
