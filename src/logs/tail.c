#include "logs/tail.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* What one call may unpack without finding anything: it runs in a thread that others wait for. */
enum { STRETCH_MAX = 2 * 1024 * 1024 };

struct tail {
	struct log_store *store;
	struct tail_opts opts;
	char *text_wanted; /* the filter's */
	bool narrows;
	bool searching;
	uint64_t scanned;
	int64_t told; /* the number that the reader knows */
	struct log_reader reader;
	struct buf text; /* made and not yet given */
	size_t given;
	bool ended;
};

struct tail *tail_new(struct log_store *s, const struct tail_opts *opts)
{
	struct tail *t = xcalloc(1, sizeof(*t));
	struct str *wanted = &t->opts.filter.text.text;

	t->store = s;
	t->opts = *opts;
	t->told = opts->cursor;
	t->narrows = log_filter_narrows(&opts->filter);
	t->searching = t->narrows;
	if (wanted->len > 0) {
		t->text_wanted = xmemdup0(wanted->data, wanted->len);
		wanted->data = t->text_wanted;
	}
	return t;
}

static void end_search(struct tail *t, enum log_partial partial)
{
	if (!t->searching)
		return;
	t->searching = false;
	if (t->opts.searched != NULL)
		t->opts.searched(t->opts.ctx, &t->opts.key, partial, t->scanned);
}

void tail_free(struct tail *t)
{
	if (t == NULL)
		return;
	end_search(t, LOG_WHOLE);
	log_reader_fini(&t->reader);
	buf_fini(&t->text);
	free(t->text_wanted);
	free(t);
}

static void put_line(struct tail *t, const struct log_line *line)
{
	if (t->opts.events)
		buf_printf(&t->text, "id: %" PRId64 "\ndata: ", line->seq);
	log_line_show(line, &t->text);
	if (t->opts.events)
		buf_putc(&t->text, '\n');
	t->told = line->seq;
}

static void put_cursor(struct tail *t)
{
	if (t->opts.events)
		buf_printf(&t->text, "event: cursor\nid: %" PRId64 "\ndata: ", t->opts.cursor);
	buf_printf(&t->text, "{\"cursor\":%" PRId64 "}\n%s", t->opts.cursor, t->opts.events ? "\n" : "");
	t->told = t->opts.cursor;
}

static void put_end(struct tail *t, bool complete, bool capped, enum log_partial partial)
{
	buf_printf(&t->text, "%s{\"end\":%s,\"last_seq\":%" PRId64, t->opts.events ? "event: end\ndata: " : "",
		   complete ? "true" : "false", t->opts.cursor);
	if (partial != LOG_WHOLE)
		buf_printf(&t->text, ",\"partial\":\"%s\"", log_partial_name(partial));
	if (capped)
		buf_puts(&t->text, ",\"cut\":true");
	buf_puts(&t->text, t->opts.events ? "}\n\n" : "}\n");
	t->ended = true;
}

/* The rest of the block that the cursor stands in or before. LOG_STORE_END: there is nothing behind it. */
static int put_block(struct tail *t, struct err *err)
{
	const struct log_filter *filter = &t->opts.filter;
	const struct attempts_seek seek = {
		.seq = t->opts.cursor + 1,
		.since_at = filter->since_at,
		.until_at = filter->until_at != INT64_MAX ? filter->until_at - 1 : INT64_MAX,
	};

	int rc = log_store_read(t->store, &t->opts.key, &seek, filter->text.text.len > 0 ? &filter->text : NULL,
				&t->reader, err);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < t->reader.lines.count; i++) {
		const struct log_line *line = &t->reader.lines.lines[i];
		if (line->seq > t->opts.cursor && (!t->narrows || log_filter_passes(filter, line)))
			put_line(t, line);
	}
	t->opts.cursor = t->reader.block.last_seq;
	t->scanned += t->reader.block.raw_len;
	log_budget_take(&t->opts.budget, t->reader.block.raw_len);
	return 0;
}

/* Blocks, until one has something. */
static int put_blocks(struct tail *t, struct err *err)
{
	uint64_t begun = t->scanned;
	int rc = 0;

	do
		rc = put_block(t, err);
	while (rc == 0 && t->text.len == 0 && t->scanned - begun < STRETCH_MAX);
	return rc;
}

/* All that there is was looked at. */
static int at_the_end(struct tail *t, const struct attempt_state *now)
{
	/* Blocks that the filter's times rule out were not even read. */
	if (t->opts.cursor < now->last_seq)
		t->opts.cursor = now->last_seq;
	end_search(t, LOG_WHOLE);
	if (now->complete || !t->opts.follow)
		put_end(t, now->complete, now->capped, LOG_WHOLE);
	else if (t->told < t->opts.cursor)
		put_cursor(t);
	else
		return TAIL_WAIT;
	return 1;
}

/* Makes text, or says why there is none. */
static int fill(struct tail *t)
{
	struct attempt_state now;
	struct err err = {0};

	if (t->searching) {
		enum log_partial spent = t->scanned > 0 ? log_budget_state(&t->opts.budget) : LOG_WHOLE;
		if (spent != LOG_WHOLE) {
			end_search(t, spent);
			put_end(t, false, false, spent);
			return 1;
		}
	}
	/* First the state, then the lines: what the seal covers is then seen. */
	if (log_store_state(t->store, &t->opts.key, &now, &err) < 0)
		return TAIL_FAILED;
	/* The log was deleted meanwhile. */
	if (now.last_seq < t->opts.cursor)
		return TAIL_FAILED;
	int rc = put_blocks(t, &err);
	if (rc < 0)
		return TAIL_FAILED;
	if (t->text.len > 0)
		return 1;
	if (rc == LOG_STORE_END)
		return at_the_end(t, &now);
	put_cursor(t);
	return 1;
}

static ptrdiff_t give(struct tail *t, char *to, size_t cap)
{
	size_t len = t->text.len - t->given < cap ? t->text.len - t->given : cap;

	memcpy(to, t->text.data + t->given, len);
	t->given += len;
	if (t->given == t->text.len) {
		buf_clear(&t->text);
		t->given = 0;
	}
	return (ptrdiff_t)len;
}

ptrdiff_t tail_read(struct tail *t, char *to, size_t cap)
{
	if (t->text.len == 0) {
		if (t->ended)
			return TAIL_END;
		int rc = fill(t);
		if (rc < 0)
			return rc;
	}
	return give(t, to, cap);
}

ptrdiff_t tail_idle(struct tail *t, char *to, size_t cap)
{
	assert(t->text.len == 0 && !t->ended);
	buf_puts(&t->text, t->opts.events ? ": keep-alive\n\n" : "\n");
	return give(t, to, cap);
}
