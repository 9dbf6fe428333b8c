#include "logs/tail.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct tail {
	struct log_store *store;
	struct tail_opts opts;
	struct log_reader reader;
	struct buf text; /* made and not yet given */
	size_t given;
	bool ended;
};

struct tail *tail_new(struct log_store *s, const struct tail_opts *opts)
{
	struct tail *t = xcalloc(1, sizeof(*t));

	t->store = s;
	t->opts = *opts;
	return t;
}

void tail_free(struct tail *t)
{
	if (t == NULL)
		return;
	log_reader_fini(&t->reader);
	buf_fini(&t->text);
	free(t);
}

static void put_line(struct tail *t, const struct log_line *line)
{
	if (t->opts.events)
		buf_printf(&t->text, "id: %" PRId64 "\ndata: ", line->seq);
	log_line_encode(line, &t->text);
	if (t->opts.events)
		buf_putc(&t->text, '\n');
}

static void put_end(struct tail *t, bool complete)
{
	buf_printf(&t->text, "%s{\"end\":%s,\"last_seq\":%" PRId64 "}\n%s", t->opts.events ? "event: end\ndata: " : "",
		   complete ? "true" : "false", t->opts.cursor, t->opts.events ? "\n" : "");
	t->ended = true;
}

/* The rest of the block that the cursor stands in or before. LOG_STORE_END: there is nothing behind it. */
static int put_block(struct tail *t, struct err *err)
{
	const struct attempts_seek seek = {
		.seq = t->opts.cursor + 1,
		.since_at = INT64_MIN,
		.until_at = INT64_MAX,
	};

	int rc = log_store_read(t->store, &t->opts.key, &seek, &t->reader, err);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < t->reader.lines.count; i++) {
		const struct log_line *line = &t->reader.lines.lines[i];
		if (line->seq > t->opts.cursor)
			put_line(t, line);
	}
	t->opts.cursor = t->reader.lines.lines[t->reader.lines.count - 1].seq;
	return 0;
}

/* Makes text, or says why there is none. */
static int fill(struct tail *t)
{
	struct attempt_state now;
	struct err err = {0};

	/* First the state, then the lines: what the seal covers is then seen. */
	if (log_store_state(t->store, &t->opts.key, &now, &err) < 0)
		return TAIL_FAILED;
	int rc = put_block(t, &err);
	if (rc < 0)
		return TAIL_FAILED;
	if (rc == 0)
		return 1;
	if (now.complete || !t->opts.follow) {
		put_end(t, now.complete);
		return 1;
	}
	return TAIL_WAIT;
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
