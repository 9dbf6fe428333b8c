#include "base/listing.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/suggest.h"

int print_text(const struct buf *text, struct err *err)
{
	return file_write_fd(STDOUT_FILENO, buf_str(text), err);
}

/* --- fields --- */

static bool has_field(const struct js *rows, const char *field)
{
	for (size_t i = 0; i < js_len(rows); i++) {
		if (js_get(js_at(rows, i), field) != NULL)
			return true;
	}
	return js_get(rows, field) != NULL;
}

static void offer_fields(const struct js *object, struct suggest *nearest, struct buf *names)
{
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;

	while (js_each(object, &iter, &key, &value)) {
		suggest_offer(nearest, key);
		buf_printf(names, "%s%s", names->len > 0 ? ", " : "", key);
	}
}

static int no_field(const struct js *v, const char *field, struct err *err)
{
	struct suggest nearest = {.given = str_c(field)};
	autovar(buf) names = {0};

	offer_fields(js_type(v) == JS_ARRAY ? js_at(v, 0) : v, &nearest, &names);
	const char *meant = suggest_best(&nearest);
	if (meant != NULL)
		return err_set(err, ERR_INVALID, "--json: there is no field '%s'; did you mean %s?", field, meant);
	return err_set(err, ERR_INVALID, "--json: there is no field '%s': %s", field, names.data);
}

static struct js *pick(const struct js *object, const char *fields)
{
	struct js *picked = js_new_object();

	for (struct str rest = str_c(fields); rest.data != NULL;) {
		struct str name = str_trim(str_cut(&rest, ','));
		autofree char *key = xmemdup0(name.data, name.len);
		const struct js *value = js_get(object, key);
		js_set(picked, key, value != NULL ? js_copy(value) : js_new_null());
	}
	return picked;
}

/* An empty array has whatever one asks for. */
static int pick_fields(const struct js *v, const char *fields, struct js **ret, struct err *err)
{
	bool many = js_type(v) == JS_ARRAY;

	for (struct str rest = str_c(fields); rest.data != NULL;) {
		struct str name = str_trim(str_cut(&rest, ','));
		autofree char *key = xmemdup0(name.data, name.len);
		if (!(many && js_len(v) == 0) && !has_field(v, key))
			return no_field(v, key, err);
	}
	if (!many) {
		*ret = pick(v, fields);
		return 0;
	}
	*ret = js_new_array();
	for (size_t i = 0; i < js_len(v); i++)
		js_push(*ret, pick(js_at(v, i), fields));
	return 0;
}

static bool names_fields(const struct output_flags *flags)
{
	return flags->json != NULL && flags->json[0] != '\0';
}

/* --- the forms of a listing --- */

static void put_value(const struct js *v, struct buf *out);

static void put_list(const struct js *list, struct buf *out)
{
	for (size_t i = 0; i < js_len(list); i++) {
		buf_puts(out, i > 0 ? "," : "");
		put_value(js_at(list, i), out);
	}
}

static void put_pairs(const struct js *object, struct buf *out)
{
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;
	bool any = false;

	while (js_each(object, &iter, &key, &value)) {
		buf_printf(out, "%s%s=", any ? ", " : "", key);
		put_value(value, out);
		any = true;
	}
}

/* As people read it; nothing for null. */
static void put_value(const struct js *v, struct buf *out)
{
	if (v == NULL || js_type(v) == JS_NULL)
		return;
	if (js_type(v) == JS_STRING)
		buf_puts(out, js_text(v, ""));
	else if (js_type(v) == JS_ARRAY)
		put_list(v, out);
	else if (js_type(v) == JS_OBJECT)
		put_pairs(v, out);
	else
		js_write(v, out);
}

static void put_shown(const struct listing_column *c, const struct js *row, struct buf *out)
{
	if (c->put != NULL)
		c->put(row, out);
	else
		put_value(js_get(row, c->field), out);
}

static void put_table(const struct listing *l, const struct js *rows, const struct screen *screen, struct buf *out)
{
	autofree const char **titles = xcalloc(l->count, sizeof(*titles));
	int64_t now_at = clock_unix_ns();

	for (size_t c = 0; c < l->count; c++)
		titles[c] = l->columns[c].title;
	autoptr(table) t = table_new(titles, l->count);
	for (size_t i = 0; i < js_len(rows); i++) {
		const struct js *row = js_at(rows, i);
		for (size_t c = 0; c < l->count; c++) {
			const struct listing_column *column = &l->columns[c];
			autovar(buf) text = {0};
			if (column->time)
				put_time(screen, js_text(js_get(row, column->field), NULL), now_at, &text);
			else
				put_shown(column, row, &text);
			table_cell(t, text.data, column->style_of != NULL ? column->style_of(row) : column->style);
		}
	}
	table_print(t, screen, out);
}

/* RFC 4180, with line feeds alone: quotes where they are needed, doubled inside. */
static void put_csv_cell(struct str text, struct buf *out)
{
	bool quoted = false;

	for (size_t i = 0; i < text.len; i++)
		quoted = quoted || (text.data[i] != '\0' && strchr("\",\r\n", text.data[i]) != NULL);
	buf_puts(out, quoted ? "\"" : "");
	for (size_t i = 0; i < text.len; i++) {
		buf_putc(out, text.data[i]);
		if (text.data[i] == '"')
			buf_putc(out, '"');
	}
	buf_puts(out, quoted ? "\"" : "");
}

static void put_csv(const struct listing *l, const struct js *rows, struct buf *out)
{
	for (size_t c = 0; c < l->count; c++)
		buf_printf(out, "%s%s", c > 0 ? "," : "", l->columns[c].field);
	buf_putc(out, '\n');
	for (size_t i = 0; i < js_len(rows); i++) {
		for (size_t c = 0; c < l->count; c++) {
			autovar(buf) text = {0};
			buf_puts(out, c > 0 ? "," : "");
			put_shown(&l->columns[c], js_at(rows, i), &text);
			put_csv_cell(buf_str(&text), out);
		}
		buf_putc(out, '\n');
	}
}

static void put_names(const struct listing *l, const struct js *rows, struct buf *out)
{
	for (size_t i = 0; i < js_len(rows); i++) {
		put_value(js_get(js_at(rows, i), l->id), out);
		buf_putc(out, '\n');
	}
}

static int put_json(const struct output_flags *flags, const struct js *v, bool lines, struct buf *out, struct err *err)
{
	autoptr(js) picked = NULL;

	int rc = names_fields(flags) ? pick_fields(v, flags->json, &picked, err) : 0;
	if (rc < 0)
		return rc;
	const struct js *shown = picked != NULL ? picked : v;
	for (size_t i = 0; lines && i < js_len(shown); i++) {
		js_write(js_at(shown, i), out);
		buf_putc(out, '\n');
	}
	if (!lines) {
		js_write_pretty(shown, out);
		buf_putc(out, '\n');
	}
	return 0;
}

int print_json(const struct output_flags *flags, const struct js *v, struct err *err)
{
	autovar(buf) out = {0};

	int rc = put_json(flags, v, false, &out, err);
	return rc < 0 ? rc : print_text(&out, err);
}

/* One form, of the three flags that may name one. */
static int choose(const struct output_flags *flags, const char **ret, struct err *err)
{
	const char *format = flags->format;

	if (flags->quiet && (flags->json != NULL || (format != NULL && strcmp(format, "name") != 0)))
		return err_set(err, ERR_INVALID, "-q prints ids only: leave out %s",
			       flags->json != NULL ? "--json" : "-o");
	if (flags->json != NULL && format != NULL && strncmp(format, "json", 4) != 0)
		return err_set(err, ERR_INVALID, "--json and -o %s are two forms: choose one", format);
	if (format == NULL)
		format = flags->quiet ? "name" : flags->json != NULL ? "json" : "table";
	*ret = format;
	return 0;
}

int listing_put(const struct listing *l, const struct output_flags *flags, const struct screen *screen,
		const struct js *rows, struct buf *out, struct err *err)
{
	const char *format = NULL;

	int rc = choose(flags, &format, err);
	if (rc < 0)
		return rc;
	if (strncmp(format, "json", 4) == 0)
		return put_json(flags, rows, strcmp(format, "jsonl") == 0, out, err);
	if (strcmp(format, "csv") == 0)
		put_csv(l, rows, out);
	else if (strcmp(format, "name") == 0)
		put_names(l, rows, out);
	else if (js_len(rows) == 0 && l->none != NULL && screen->tty)
		buf_printf(out, "%s\n", l->none);
	else if (l->text != NULL)
		l->text(l->ctx, rows, screen, out);
	else
		put_table(l, rows, screen, out);
	return 0;
}

int print_listing(const struct listing *l, const struct output_flags *flags, const struct js *rows, struct err *err)
{
	const struct screen screen = screen_find(flags->color);
	autovar(buf) out = {0};

	int rc = listing_put(l, flags, &screen, rows, &out, err);
	return rc < 0 ? rc : print_text(&out, err);
}
