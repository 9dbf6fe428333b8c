#include "cli/figures.h"

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

/* Names come from outside: they neither steer a terminal nor end a cell. */
static void put_cell(const struct js *v, bool markdown, struct buf *out)
{
	autovar(buf) raw = {0};
	autovar(buf) clean = {0};

	if (js_type(v) == JS_STRING)
		buf_puts(&raw, js_text(v, ""));
	else if (v == NULL || js_type(v) == JS_NULL)
		buf_putc(&raw, '-');
	else
		js_write(v, &raw);
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

static void put_row(const struct js *const *cells, size_t count, bool markdown, struct buf *out)
{
	buf_puts(out, markdown ? "|" : " ");
	for (size_t i = 0; i < count; i++) {
		buf_putc(out, ' ');
		put_cell(cells[i], markdown, out);
		buf_puts(out, markdown ? " |" : " ");
	}
	while (out->len > 0 && out->data[out->len - 1] == ' ')
		out->len--;
	buf_putc(out, '\n');
}

static void put_names(const char *const *names, size_t count, bool markdown, struct buf *out)
{
	if (!markdown)
		return;
	for (size_t i = 0; i < count; i++)
		buf_printf(out, "%s %s |", i == 0 ? "|" : "", names[i]);
	buf_putc(out, '\n');
	for (size_t i = 0; i < count; i++)
		buf_printf(out, "%s---|", i == 0 ? "|" : "");
	buf_putc(out, '\n');
}

enum { CELLS_MAX = 16 };

/* An object's members. */
static size_t members(const struct js *o, const char **names, const struct js **cells)
{
	void *iter = NULL;
	size_t count = 0;

	while (count < CELLS_MAX && js_each(o, &iter, &names[count], &cells[count]))
		count++;
	return count;
}

static void put_list(const struct js *list, bool markdown, struct buf *out)
{
	for (size_t i = 0; i < js_len(list); i++) {
		const struct js *item = js_at(list, i);
		const struct js *cells[CELLS_MAX] = {item};
		const char *names[CELLS_MAX] = {"name", "count"};
		size_t count = 1;

		if (js_type(item) == JS_OBJECT)
			count = members(item, names, cells);
		else if (js_type(item) == JS_ARRAY)
			for (count = 0; count < js_len(item) && count < 2; count++)
				cells[count] = js_at(item, count);
		if (i == 0)
			put_names(names, count, markdown, out);
		put_row(cells, count, markdown, out);
	}
}

static void put_object(const struct js *o, bool markdown, struct buf *out)
{
	static const char *const names[] = {"name", "count"};
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;

	put_names(names, ARRAY_LEN(names), markdown, out);
	while (js_each(o, &iter, &key, &value)) {
		autoptr(js) name = js_new_text(key);
		put_row((const struct js *const[]){name, value}, 2, markdown, out);
	}
}

static void put_part(const char *name, const struct js *v, bool markdown, struct buf *out)
{
	size_t start = out->len;

	buf_printf(out, markdown ? "\n### %s\n\n" : "%s:\n", name);
	size_t head = out->len;
	if (js_type(v) == JS_ARRAY)
		put_list(v, markdown, out);
	else if (js_type(v) == JS_OBJECT)
		put_object(v, markdown, out);
	if (out->len > head)
		return;
	out->len = start;
	buf_printf(out, markdown ? "\n%s: " : "%s: ", name);
	if (js_type(v) == JS_ARRAY || js_type(v) == JS_OBJECT)
		buf_puts(out, "none");
	else
		put_cell(v, markdown, out);
	buf_putc(out, '\n');
}

void figures_put(const char *title, const struct js *figures, bool markdown, struct buf *out)
{
	const struct js *value = NULL;
	const char *name = NULL;
	void *iter = NULL;

	buf_printf(out, markdown ? "## %s\n" : "== %s ==\n", title);
	while (js_each(figures, &iter, &name, &value))
		put_part(name, value, markdown, out);
	buf_putc(out, '\n');
}
