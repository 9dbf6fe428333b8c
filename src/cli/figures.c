#include "cli/figures.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/terminal.h"

enum { TOP = 5, TIMELINE = 10, SAMPLES = 5 };

/* --- counting --- */

struct counted {
	char *key;
	int64_t count;
};

struct counter {
	struct counted *items;
	size_t count;
};

static void counter_fini(struct counter *c)
{
	for (size_t i = 0; i < c->count; i++)
		free(c->items[i].key);
	free(c->items);
}
AUTOVAR_DEFINE(counter)

static void count_one(struct counter *c, const char *key)
{
	size_t i = 0;

	while (i < c->count && strcmp(c->items[i].key, key) != 0)
		i++;
	if (i == c->count) {
		c->items = xreallocarray(c->items, c->count + 1, sizeof(*c->items));
		c->items[c->count].key = xstrdup(key);
		c->items[c->count++].count = 0;
	}
	c->items[i].count++;
}

static int more_first(const void *a, const void *b)
{
	const struct counted *x = a;
	const struct counted *y = b;

	return x->count < y->count ? 1 : x->count > y->count ? -1 : 0;
}

static void sort(struct counter *c)
{
	if (c->count > 0)
		qsort(c->items, c->count, sizeof(*c->items), more_first);
}

static struct js *as_object(const struct counter *c)
{
	struct js *o = js_new_object();

	for (size_t i = 0; i < c->count; i++)
		js_set(o, c->items[i].key, js_new_int(c->items[i].count));
	return o;
}

/* [["name", 3], ...] */
static struct js *as_pairs(struct counter *c)
{
	struct js *list = js_new_array();

	sort(c);
	for (size_t i = 0; i < c->count && i < TOP; i++) {
		struct js *pair = js_new_array();
		js_push(pair, js_new_text(c->items[i].key));
		js_push(pair, js_new_int(c->items[i].count));
		js_push(list, pair);
	}
	return list;
}

/* --- jobs --- */

static struct js *count_field(const struct js *jobs, const char *field)
{
	autovar(counter) c = {0};

	for (size_t i = 0; i < js_len(jobs); i++) {
		const char *text = js_text(js_get(js_at(jobs, i), field), "");
		if (text[0] != '\0')
			count_one(&c, text);
	}
	return as_pairs(&c);
}

static struct js *count_states(const struct js *jobs)
{
	autovar(counter) c = {0};

	for (size_t i = 0; i < js_len(jobs); i++)
		count_one(&c, js_text(js_get(js_at(jobs, i), "status"), "unknown"));
	return as_object(&c);
}

/* Key and value with a newline between, which neither a key nor the split minds. */
static struct js *count_metadata(const struct js *jobs)
{
	struct js *list = js_new_array();
	autovar(counter) c = {0};

	for (size_t i = 0; i < js_len(jobs); i++) {
		const struct js *value = NULL;
		const char *key = NULL;
		void *iter = NULL;
		while (js_each(js_get(js_at(jobs, i), "metadata"), &iter, &key, &value)) {
			if (str_ends_with(str_c(key), STR("_ms"))) /* measured: hardly ever twice the same */
				continue;
			autofree char *both = xasprintf("%s\n%s", key, js_text(value, ""));
			count_one(&c, both);
		}
	}
	sort(&c);
	for (size_t i = 0; i < c.count && i < TOP; i++) {
		struct js *o = js_new_object();
		struct str value = str_c(c.items[i].key);
		struct str key = str_cut(&value, '\n');
		js_set(o, "key", js_new_str(key));
		js_set(o, "value", js_new_str(value));
		js_set(o, "count", js_new_int(c.items[i].count));
		js_push(list, o);
	}
	return list;
}

static struct js *timeline(const struct js *jobs)
{
	static const char *const fields[] = {"job_id", "status", "agent_id", "updated_at"};
	struct js *list = js_new_array();

	for (size_t i = 0; i < js_len(jobs) && i < TIMELINE; i++) {
		struct js *o = js_new_object();
		for (size_t f = 0; f < ARRAY_LEN(fields); f++) {
			const struct js *v = js_get(js_at(jobs, i), fields[f]);
			js_set(o, fields[f], v != NULL ? js_copy(v) : js_new_null());
		}
		js_push(list, o);
	}
	return list;
}

static bool time_of(const struct js *job, const char *field, int64_t *ret)
{
	return clock_parse(str_c(js_text(js_get(job, field), "")), ret, NULL) == 0;
}

static int smaller_first(const void *a, const void *b)
{
	const int64_t *x = a;
	const int64_t *y = b;

	return *x < *y ? -1 : *x > *y ? 1 : 0;
}

/* Of the jobs that have both moments: {"p50_ms", "p95_ms"}, by nearest rank. */
static struct js *spread(const struct js *jobs, const char *from, const char *to)
{
	autofree int64_t *spans = xcalloc(js_len(jobs) + 1, sizeof(*spans));
	struct js *o = js_new_object();
	size_t count = 0;

	for (size_t i = 0; i < js_len(jobs); i++) {
		int64_t begin = 0;
		int64_t end = 0;
		if (time_of(js_at(jobs, i), from, &begin) && time_of(js_at(jobs, i), to, &end) && end >= begin)
			spans[count++] = end - begin;
	}
	qsort(spans, count, sizeof(*spans), smaller_first);
	js_set(o, "p50_ms", count > 0 ? js_new_int(spans[(count * 50 + 99) / 100 - 1] / NS_PER_MS) : js_new_null());
	js_set(o, "p95_ms", count > 0 ? js_new_int(spans[(count * 95 + 99) / 100 - 1] / NS_PER_MS) : js_new_null());
	return o;
}

static struct js *times(const struct js *jobs)
{
	struct js *o = js_new_object();
	int64_t ended = 0;
	int64_t good = 0;

	for (size_t i = 0; i < js_len(jobs); i++) {
		int64_t at = 0;
		bool over = time_of(js_at(jobs, i), "completed_at", &at);
		ended += over;
		good += over && strcmp(js_text(js_get(js_at(jobs, i), "status"), ""), "succeeded") == 0;
	}
	js_set(o, "jobs", js_new_int((int64_t)js_len(jobs)));
	js_set(o, "ended", js_new_int(ended));
	js_set(o, "succeeded", js_new_int(good));
	js_set(o, "success_percent", ended > 0 ? js_new_int(good * 100 / ended) : js_new_null());
	js_set(o, "wait", spread(jobs, "queued_at", "leased_at"));
	js_set(o, "run", spread(jobs, "started_at", "completed_at"));
	return o;
}

struct js *figures_of_jobs(const struct js *jobs, const struct js *status)
{
	struct js *o = js_new_object();
	const struct js *counts = js_get(status, "jobs_by_status");

	js_set(o, "queue_length", js_new_int(js_int(js_get(status, "queue_length"), 0)));
	js_set(o, "jobs_by_status", count_states(jobs));
	js_set(o, "control_plane_counts", counts != NULL ? js_copy(counts) : js_new_object());
	js_set(o, "top_repositories", count_field(jobs, "repo_full_name"));
	js_set(o, "top_agents", count_field(jobs, "agent_id"));
	js_set(o, "top_metadata", count_metadata(jobs));
	js_set(o, "recent_timeline", timeline(jobs));
	js_set(o, "times", times(jobs));
	return o;
}

/* --- logs --- */

struct js *figures_of_logs(const struct js *lines)
{
	autovar(counter) levels = {0};
	autovar(counter) jobs = {0};
	struct js *samples = js_new_array();
	struct js *o = js_new_object();

	for (size_t i = 0; i < js_len(lines); i++) {
		const struct js *line = js_at(lines, i);
		char id[24];
		(void)snprintf(id, sizeof(id), "%" PRId64, js_int(js_get(line, "job_id"), 0));
		count_one(&levels, js_text(js_get(line, "level"), "unknown"));
		count_one(&jobs, id);
		if (i < SAMPLES)
			js_push(samples, js_copy(line));
	}
	js_set(o, "entry_count", js_new_int((int64_t)js_len(lines)));
	js_set(o, "levels", as_object(&levels));
	js_set(o, "jobs", as_object(&jobs));
	js_set(o, "samples", samples);
	return o;
}

/* --- for people --- */

/* What stands in a cell; of an object its members, "p50_ms 2, p95_ms 7". */
static void put_value(const struct js *v, struct buf *out)
{
	const struct js *member = NULL;
	const char *key = NULL;
	void *iter = NULL;
	size_t start = out->len;

	if (js_type(v) == JS_OBJECT) {
		while (js_each(v, &iter, &key, &member)) {
			buf_printf(out, "%s%s ", out->len > start ? ", " : "", key);
			js_write(member, out);
		}
	} else if (js_type(v) == JS_STRING) {
		buf_puts(out, js_text(v, ""));
	} else if (v == NULL || js_type(v) == JS_NULL) {
		buf_putc(out, '-');
	} else {
		js_write(v, out);
	}
}

/* Names come from outside: they neither steer a terminal nor end a cell. */
static void put_cell(const struct js *v, bool markdown, struct buf *out)
{
	autovar(buf) raw = {0};
	autovar(buf) clean = {0};

	put_value(v, &raw);
	(void)terminal_clean(buf_str(&raw), false, &clean);
	for (size_t i = 0; i < clean.len; i++) {
		char c = clean.data[i];
		if (markdown && strchr("|`<>*_[]\\", c) != NULL)
			buf_putc(out, '\\');
		if (c == '\n' || c == '\t')
			c = ' ';
		buf_putc(out, c);
	}
}

enum { CELLS_MAX = 16 };

/* One part of a report: a table as it is made, for people or as Markdown. */
struct part {
	const struct screen *screen; /* NULL: Markdown */
	struct buf *out;
	const char *names[CELLS_MAX]; /* of the columns */
	size_t columns;
	struct table *table; /* for people */
	char *titles[CELLS_MAX];
};

static void part_begin(struct part *p)
{
	for (size_t i = 0; p->screen == NULL && i < p->columns; i++)
		buf_printf(p->out, "%s %s |", i == 0 ? "|" : "", p->names[i]);
	for (size_t i = 0; p->screen == NULL && i < p->columns; i++)
		buf_printf(p->out, "%s---|", i == 0 ? "\n|" : "");
	if (p->screen == NULL) {
		buf_putc(p->out, '\n');
		return;
	}
	for (size_t i = 0; i < p->columns; i++) {
		p->titles[i] = xstrdup(p->names[i]);
		for (char *c = p->titles[i]; *c != '\0'; c++)
			*c = (char)(*c == '_' ? ' ' : toupper((unsigned char)*c));
	}
	p->table = table_new((const char *const *)p->titles, p->columns);
}

static void part_row(struct part *p, const struct js *const *cells, size_t count)
{
	if (p->screen == NULL)
		buf_putc(p->out, '|');
	for (size_t i = 0; i < count; i++) {
		autovar(buf) text = {0};
		put_cell(cells[i], p->screen == NULL, &text);
		if (p->screen == NULL)
			buf_printf(p->out, " %s |", text.len > 0 ? text.data : "");
		else
			table_cell(p->table, text.len > 0 ? text.data : "", STYLE_PLAIN);
	}
	if (p->screen == NULL)
		buf_putc(p->out, '\n');
}

static void part_end(struct part *p)
{
	if (p->table != NULL)
		table_print(p->table, p->screen, p->out);
	table_free(p->table);
	for (size_t i = 0; i < p->columns; i++)
		free(p->titles[i]);
}

/* Of a line of a log what people look for; of any other row all members. */
static void name_columns(const struct js *row, struct part *p)
{
	static const char *const of_line[] = {"job_id", "seq", "level", "message"};
	const struct js *value = NULL;
	void *iter = NULL;

	if (js_type(row) != JS_OBJECT) {
		p->names[p->columns++] = "name";
		p->names[p->columns++] = "count";
	} else if (js_get(row, "message") != NULL) {
		for (size_t i = 0; i < ARRAY_LEN(of_line); i++)
			p->names[p->columns++] = of_line[i];
	} else {
		while (p->columns < CELLS_MAX && js_each(row, &iter, &p->names[p->columns], &value))
			p->columns++;
	}
}

static void put_list(const struct js *list, struct part *p)
{
	name_columns(js_at(list, 0), p);
	part_begin(p);
	for (size_t i = 0; i < js_len(list); i++) {
		const struct js *item = js_at(list, i);
		const struct js *cells[CELLS_MAX] = {NULL};
		for (size_t c = 0; c < p->columns; c++)
			cells[c] = js_type(item) == JS_OBJECT ? js_get(item, p->names[c]) : js_at(item, c);
		part_row(p, cells, p->columns);
	}
	part_end(p);
}

static void put_object(const struct js *o, const char *what, struct part *p)
{
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;

	p->names[0] = "name";
	p->names[1] = what;
	p->columns = 2;
	part_begin(p);
	while (js_each(o, &iter, &key, &value)) {
		autoptr(js) name = js_new_text(key);
		part_row(p, (const struct js *const[]){name, value}, 2);
	}
	part_end(p);
}

static bool is_empty(const struct js *v)
{
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;

	return js_type(v) == JS_ARRAY ? js_len(v) == 0 : js_type(v) == JS_OBJECT && !js_each(v, &iter, &key, &value);
}

static void put_part(const char *name, const struct js *v, const struct screen *screen, struct buf *out)
{
	struct part p = {.screen = screen, .out = out};
	bool several = js_type(v) == JS_ARRAY || js_type(v) == JS_OBJECT;

	if (!several || is_empty(v)) {
		buf_printf(out, screen == NULL ? "\n%s: " : "%s: ", name);
		if (several)
			buf_puts(out, "none");
		else
			put_cell(v, screen == NULL, out);
		buf_putc(out, '\n');
		return;
	}
	buf_printf(out, screen == NULL ? "\n### %s\n\n" : "\n%s:\n", name);
	if (js_type(v) == JS_ARRAY)
		put_list(v, &p);
	else
		put_object(v, strcmp(name, "times") == 0 ? "value" : "count", &p);
}

void figures_put(const char *title, const struct js *figures, const struct screen *screen, struct buf *out)
{
	const struct js *value = NULL;
	const char *name = NULL;
	void *iter = NULL;

	buf_printf(out, screen == NULL ? "## %s\n" : "== %s ==\n", title);
	while (js_each(figures, &iter, &name, &value))
		put_part(name, value, screen, out);
	buf_putc(out, '\n');
}
