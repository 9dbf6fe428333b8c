#include "logs/query.h"

#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"

/* How far the clock that stamped a line may be ahead of the one that stamped its file. */
#define CLOCK_SLACK_NS (3600 * NS_PER_S)

static unsigned lower(char c)
{
	unsigned byte = (unsigned char)c;

	return byte - 'A' < 26 ? byte | 0x20 : byte;
}

static bool begins_with(const char *text, struct str wanted)
{
	for (size_t i = 0; i < wanted.len; i++) {
		if (lower(text[i]) != lower(wanted.data[i]))
			return false;
	}
	return true;
}

bool log_text_has(struct str text, struct str wanted)
{
	if (wanted.len == 0)
		return true;
	for (size_t i = 0; i + wanted.len <= text.len; i++) {
		if (begins_with(text.data + i, wanted))
			return true;
	}
	return false;
}

static void forget(struct log_result *r, struct log_line *line)
{
	r->bytes -= line->message.len + line->agent_id.len;
	free((void *)(uintptr_t)line->message.data);
}

void log_result_fini(struct log_result *r)
{
	for (size_t i = 0; i < r->count; i++)
		forget(r, &r->lines[i]);
	free(r->lines);
	*r = (struct log_result){0};
}

/* A search under way: the best lines so far, the best first. */
struct search {
	struct log_store *store;
	const struct log_query *query;
	bool one_attempt;
	bool full; /* as many lines as are wanted, or as much text as may be */
	struct log_result found;
};

static int compare_i64(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

/* Negative: a comes before b in the answer. */
static int compare(const struct search *s, const struct log_line *a, const struct log_line *b)
{
	int order = s->one_attempt ? 0 : compare_i64(a->timestamp, b->timestamp);

	if (order == 0)
		order = compare_i64(a->job_id, b->job_id);
	if (order == 0)
		order = compare_i64(a->attempt, b->attempt);
	if (order == 0)
		order = compare_i64(a->seq, b->seq);
	return s->query->oldest_first ? order : -order;
}

static bool matches(const struct log_query *q, const struct log_line *line)
{
	if (line->timestamp < q->since_at || (q->until_at != 0 && line->timestamp >= q->until_at))
		return false;
	if (q->cursor != 0 && (q->oldest_first ? line->seq <= q->cursor : line->seq >= q->cursor))
		return false;
	if (q->repo_id != 0 && line->repo_id != q->repo_id)
		return false;
	return log_text_has(line->message, q->text);
}

/* Its text becomes ours: one piece of memory, the message first. */
static struct log_line copy(const struct log_line *line)
{
	struct log_line own = *line;
	char *text = xmalloc(line->message.len + line->agent_id.len + 1);

	if (line->message.len > 0)
		memcpy(text, line->message.data, line->message.len);
	if (line->agent_id.len > 0)
		memcpy(text + line->message.len, line->agent_id.data, line->agent_id.len);
	own.message.data = text;
	own.agent_id.data = text + line->message.len;
	return own;
}

static void drop_worst(struct search *s)
{
	forget(&s->found, &s->found.lines[--s->found.count]);
}

static void offer(struct search *s, const struct log_line *line)
{
	struct log_result *r = &s->found;
	size_t at = r->count;

	while (at > 0 && compare(s, line, &r->lines[at - 1]) < 0)
		at--;
	if (s->full && at == r->count)
		return;
	if (s->full)
		drop_worst(s);
	if (r->count == r->cap) {
		r->cap = r->cap == 0 ? 64 : r->cap * 2;
		r->lines = xreallocarray(r->lines, r->cap, sizeof(*r->lines));
	}
	memmove(&r->lines[at + 1], &r->lines[at], (r->count - at) * sizeof(*r->lines));
	r->lines[at] = copy(line);
	r->count++;
	r->bytes += line->message.len + line->agent_id.len;
	while (r->bytes > LOG_QUERY_BYTES_MAX && r->count > 1) {
		drop_worst(s);
		s->full = true;
	}
	s->full = s->full || r->count >= s->query->limit;
}

/* Blocks that cannot hold a better line than the worst one are not read. */
static struct attempts_seek seek_from(const struct search *s, int64_t seq)
{
	const struct log_query *q = s->query;
	struct attempts_seek seek = {
		.seq = seq,
		.backward = !q->oldest_first,
		.since_at = q->since_at,
		.until_at = q->until_at != 0 ? q->until_at - 1 : INT64_MAX,
	};

	if (s->full && !s->one_attempt) {
		int64_t worst_at = s->found.lines[s->found.count - 1].timestamp;
		if (q->oldest_first && worst_at < seek.until_at)
			seek.until_at = worst_at;
		if (!q->oldest_first && worst_at > seek.since_at)
			seek.since_at = worst_at;
	}
	return seek;
}

static int64_t first_seq(const struct log_query *q)
{
	if (q->oldest_first)
		return q->cursor + 1;
	return q->cursor != 0 ? q->cursor - 1 : INT64_MAX;
}

static int search_attempt(struct search *s, const struct segment_key *key, struct log_reader *reader, struct err *err)
{
	bool forward = s->query->oldest_first;
	int64_t seq = first_seq(s->query);

	/* Of one attempt the lines come in order: the first that are enough are the best. */
	while (seq > 0 && !(s->one_attempt && s->full)) {
		struct attempts_seek seek = seek_from(s, seq);
		if (clock_monotonic_ns() > s->query->deadline_ns)
			return err_set(err, ERR_TIMEOUT,
				       "the search took too long: narrow it by job_id, since or until");
		int rc = log_store_read(s->store, key, &seek, reader, err);
		if (rc == LOG_STORE_END)
			return 0;
		if (rc < 0)
			return rc;
		size_t count = reader->lines.count;
		for (size_t i = 0; i < count && !(s->one_attempt && s->full); i++) {
			const struct log_line *line = &reader->lines.lines[forward ? i : count - 1 - i];
			if (matches(s->query, line))
				offer(s, line);
		}
		seq = forward ? reader->lines.lines[count - 1].seq + 1 : reader->lines.lines[0].seq - 1;
	}
	return 0;
}

static int compare_newest(const void *a, const void *b)
{
	const struct log_entry *left = a;
	const struct log_entry *right = b;

	return compare_i64(right->changed_at, left->changed_at);
}

/* The newest files first (oldest first: last), and no more of them than can matter. */
static int search_many(struct search *s, struct err *err)
{
	const struct log_query *q = s->query;
	autovar(log_list) list = {0};
	autovar(log_reader) reader = {0};

	int rc = log_store_list(s->store, q->org_id, q->job_id, &list, err);
	if (rc < 0)
		return rc;
	if (list.count > 1)
		qsort(list.items, list.count, sizeof(*list.items), compare_newest);
	for (size_t i = 0; i < list.count && rc == 0; i++) {
		const struct log_entry *entry = &list.items[q->oldest_first ? list.count - 1 - i : i];
		/* Nothing in a file is much newer than its last change. */
		struct attempts_seek seek = seek_from(s, 1);
		if (seek.since_at > entry->changed_at && seek.since_at - entry->changed_at > CLOCK_SLACK_NS)
			continue;
		rc = search_attempt(s, &entry->key, &reader, err);
	}
	return rc;
}

int log_query_run(struct log_store *s, const struct log_query *q, struct log_result *ret, struct err *err)
{
	assert(q->limit > 0 && q->limit <= LOG_QUERY_LIMIT_MAX);
	struct search search = {
		.store = s,
		.query = q,
		.one_attempt = q->job_id != 0 && q->attempt != LOG_QUERY_ANY_ATTEMPT,
	};
	autovar(log_reader) reader = {0};
	const struct segment_key key = {q->org_id, q->job_id, q->attempt};

	int rc = search.one_attempt ? search_attempt(&search, &key, &reader, err) : search_many(&search, err);
	if (rc < 0) {
		log_result_fini(&search.found);
		return rc;
	}
	*ret = search.found;
	return 0;
}
