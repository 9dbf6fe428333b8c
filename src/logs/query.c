#include "logs/query.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "model/limits.h"

/* How far the clock that stamped a line may be ahead of the one that stamped its file. */
#define CLOCK_SLACK_NS (3600 * NS_PER_S)

const char *log_partial_name(enum log_partial p)
{
	static const char *const names[] = {[LOG_PARTIAL_TIME] = "time", [LOG_PARTIAL_SCANNED] = "scanned"};

	return names[p];
}

void log_budget_take(struct log_budget *b, uint64_t bytes)
{
	b->bytes -= bytes < b->bytes ? bytes : b->bytes;
}

enum log_partial log_budget_state(const struct log_budget *b)
{
	if (b->bytes == 0)
		return LOG_PARTIAL_SCANNED;
	return clock_monotonic_ns() > b->deadline_ns ? LOG_PARTIAL_TIME : LOG_WHOLE;
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

/* --- positions --- */

void log_cursor_write(const struct log_position *p, bool one_attempt, struct buf *out)
{
	if (one_attempt)
		buf_printf(out, "%" PRId64, p->seq);
	else
		buf_printf(out, "%" PRId64 ".%" PRId64 ".%" PRId64 ".%" PRId64, p->at, p->job_id, p->attempt, p->seq);
}

int log_cursor_parse(struct str text, bool one_attempt, struct log_position *ret, struct err *err)
{
	struct log_position p = {0};
	struct {
		int64_t *to;
		int64_t min;
		int64_t max;
	} parts[] = {
		{&p.at, INT64_MIN, INT64_MAX},
		{&p.job_id, 0, JOB_ID_MAX},
		{&p.attempt, 0, UINT32_MAX},
		{&p.seq, 0, JOB_ID_MAX},
	};
	struct str rest = text;
	int rc = 0;

	if (one_attempt) {
		rc = str_to_i64(text, "cursor", 0, JOB_ID_MAX, &p.seq, err);
	} else {
		for (size_t i = 0; i < ARRAY_LEN(parts) && rc == 0; i++)
			rc = str_to_i64(str_cut(&rest, '.'), "cursor", parts[i].min, parts[i].max, parts[i].to, NULL);
		if (rc < 0 || rest.data != NULL)
			return err_set(err, ERR_INVALID_FIELD, "cursor: none that an answer to this question gave");
	}
	if (rc == 0)
		*ret = p;
	return rc;
}

static int compare_i64(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

static int compare_positions(const struct log_position *a, const struct log_position *b)
{
	int order = compare_i64(a->at, b->at);

	if (order == 0)
		order = compare_i64(a->job_id, b->job_id);
	if (order == 0)
		order = compare_i64(a->attempt, b->attempt);
	return order != 0 ? order : compare_i64(a->seq, b->seq);
}

/* --- a search --- */

/* A search under way: the best lines so far, the best first. */
struct search {
	struct log_store *store;
	const struct log_query *query;
	struct log_budget budget;
	bool one_attempt;
	bool full; /* as many lines as are wanted, or as much text as may be */
	struct log_reader reader;
	struct log_result found;
};

static void search_fini(struct search *s)
{
	log_reader_fini(&s->reader);
	log_result_fini(&s->found);
}
AUTOVAR_DEFINE(search)

static struct log_position position_of(const struct search *s, const struct log_line *line)
{
	if (s->one_attempt)
		return (struct log_position){.seq = line->seq};
	return (struct log_position){line->timestamp, line->job_id, line->attempt, line->seq};
}

/* Negative: a comes before b in the answer. */
static int compare(const struct search *s, const struct log_position *a, const struct log_position *b)
{
	int order = compare_positions(a, b);

	return s->query->oldest_first ? order : -order;
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

/* Where in the answer it belongs. */
static size_t place_of(const struct search *s, const struct log_position *p)
{
	size_t at = s->found.count;

	while (at > 0) {
		struct log_position before = position_of(s, &s->found.lines[at - 1]);
		if (compare(s, p, &before) > 0)
			break;
		at--;
	}
	return at;
}

static void offer(struct search *s, const struct log_line *line)
{
	struct log_result *r = &s->found;
	struct log_position p = position_of(s, line);

	if (s->query->resumed && compare(s, &p, &s->query->after) <= 0)
		return;
	size_t at = place_of(s, &p);
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

static int64_t worst_at(const struct search *s)
{
	return s->found.lines[s->found.count - 1].timestamp;
}

/* Blocks are passed over that can hold no line behind the position from which this goes on, and none better than the
 * worst one. */
static struct attempts_seek seek_from(const struct search *s, int64_t seq)
{
	const struct log_query *q = s->query;
	bool oldest = q->oldest_first;
	struct attempts_seek seek = {
		.seq = seq,
		.backward = !oldest,
		.since_at = q->filter.since_at,
		.until_at = q->filter.until_at != INT64_MAX ? q->filter.until_at - 1 : INT64_MAX,
	};

	if (s->one_attempt)
		return seek;
	if (q->resumed && oldest && q->after.at > seek.since_at)
		seek.since_at = q->after.at;
	if (q->resumed && !oldest && q->after.at < seek.until_at)
		seek.until_at = q->after.at;
	if (s->full && oldest && worst_at(s) < seek.until_at)
		seek.until_at = worst_at(s);
	if (s->full && !oldest && worst_at(s) > seek.since_at)
		seek.since_at = worst_at(s);
	return seek;
}

/* Reads the next block, and offers what passes. *seq moves behind it. LOG_STORE_END: there is none. */
static int search_block(struct search *s, const struct segment_key *key, int64_t *seq, struct err *err)
{
	const struct log_filter *filter = &s->query->filter;
	const struct segment_lines *lines = &s->reader.lines;
	struct attempts_seek seek = seek_from(s, *seq);

	int rc =
		log_store_read(s->store, key, &seek, filter->text.text.len > 0 ? &filter->text : NULL, &s->reader, err);
	if (rc != 0)
		return rc;
	log_budget_take(&s->budget, s->reader.block.raw_len);
	s->found.scanned += s->reader.block.raw_len;
	/* Of one attempt the lines come in order: the first that are enough are the best. */
	for (size_t i = 0; i < lines->count && !(s->one_attempt && s->full); i++) {
		const struct log_line *line = &lines->lines[seek.backward ? lines->count - 1 - i : i];
		if (log_filter_passes(filter, line))
			offer(s, line);
	}
	*seq = seek.backward ? s->reader.block.first_seq - 1 : s->reader.block.last_seq + 1;
	return 0;
}

static void stop_at(struct search *s, enum log_partial partial, struct log_position next)
{
	s->found.more = true;
	s->found.partial = partial;
	s->found.next = next;
}

static void stop_full(struct search *s)
{
	stop_at(s, LOG_WHOLE, position_of(s, &s->found.lines[s->found.count - 1]));
}

/* --- one attempt --- */

static int64_t first_seq(const struct log_query *q)
{
	int64_t last = q->resumed ? q->after.seq : 0;

	if (q->oldest_first)
		return last + 1;
	return last != 0 ? last - 1 : INT64_MAX;
}

static int search_attempt(struct search *s, const struct segment_key *key, struct err *err)
{
	int64_t seq = first_seq(s->query);

	while (seq > 0 && !s->full) {
		int rc = search_block(s, key, &seq, err);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		enum log_partial partial = log_budget_state(&s->budget);
		if (partial != LOG_WHOLE && !s->full && seq > 0) {
			stop_at(s, partial, (struct log_position){.seq = s->query->oldest_first ? seq - 1 : seq + 1});
			return 0;
		}
	}
	if (s->full)
		stop_full(s);
	return 0;
}

/* --- several: a merge --- */

/* A log, and the best time that a line may have which was not offered yet. */
struct source {
	struct segment_key key;
	bool opened; /* else `bound_at` is a guess by the file's time */
	int64_t bound_at;
	int64_t seq; /* where the next block begins */
};

/* A heap, the source with the best bound first. */
struct sources {
	struct source *items;
	size_t count;
};

static void sources_fini(struct sources *h)
{
	free(h->items);
}
AUTOVAR_DEFINE(sources)

static bool better(const struct search *s, int64_t a_at, int64_t b_at)
{
	return s->query->oldest_first ? a_at < b_at : a_at > b_at;
}

static void sift_down(const struct search *s, struct sources *h, size_t i)
{
	for (;;) {
		size_t best = i;
		for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < h->count; child++) {
			if (better(s, h->items[child].bound_at, h->items[best].bound_at))
				best = child;
		}
		if (best == i)
			return;
		struct source moved = h->items[i];
		h->items[i] = h->items[best];
		h->items[best] = moved;
		i = best;
	}
}

/* Nothing in a file is much newer than its last change; how old its first line is, only opening tells. */
static void collect(struct search *s, const struct log_list *list, struct sources *h)
{
	struct attempts_seek seek = seek_from(s, 1);

	h->items = xcalloc(list->count + 1, sizeof(*h->items));
	for (size_t i = 0; i < list->count; i++) {
		const struct log_entry *entry = &list->items[i];
		int64_t newest_at = entry->changed_at + CLOCK_SLACK_NS;
		if (newest_at < seek.since_at)
			continue;
		int64_t bound_at = seek.backward ? newest_at : seek.since_at;
		h->items[h->count++] = (struct source){
			.key = entry->key,
			.bound_at = bound_at < seek.until_at ? bound_at : seek.until_at,
			.seq = seek.backward ? INT64_MAX : 1,
		};
	}
	for (size_t i = h->count / 2; i-- > 0;)
		sift_down(s, h, i);
}

/* Offers a block of the best source, or opens it; then it goes where it now belongs. */
static int step(struct search *s, struct sources *h, struct err *err)
{
	struct source *top = &h->items[0];
	int rc = 0;

	if (top->opened)
		rc = search_block(s, &top->key, &top->seq, err);
	top->opened = true;
	if (rc == 0 && top->seq > 0) {
		struct attempts_seek seek = seek_from(s, top->seq);
		rc = log_store_bound(s->store, &top->key, &seek, &top->bound_at, err);
	} else if (rc == 0) {
		rc = LOG_STORE_END;
	}
	if (rc < 0)
		return rc;
	if (rc == LOG_STORE_END)
		*top = h->items[--h->count];
	sift_down(s, h, 0);
	return 0;
}

/* What the sources may still bring could belong between the lines found: only what is better than all of that is sure,
 * and the rest is found again from here. */
static int stop_early(struct search *s, enum log_partial partial, int64_t bound_at, struct err *err)
{
	const struct log_query *q = s->query;
	struct log_position next = {.at = bound_at};

	/* Whatever the order, lines of the bound's own time are behind it. */
	if (!q->oldest_first && bound_at < INT64_MAX)
		next.at++;
	while (s->found.count > 0 && !better(s, worst_at(s), bound_at))
		drop_worst(s);
	if (s->found.count == 0 &&
	    (q->resumed ? compare(s, &next, &q->after) <= 0 : q->oldest_first && bound_at <= q->filter.since_at))
		return err_set(err, ERR_LIMIT,
			       "too much was logged at that time for a search without a job: name job_id");
	stop_at(s, partial, next);
	return 0;
}

static int search_many(struct search *s, struct err *err)
{
	autovar(log_list) list = {0};
	autovar(sources) heap = {0};

	int rc = log_store_list(s->store, s->query->org_id, s->query->job_id, &list, err);
	if (rc < 0)
		return rc;
	collect(s, &list, &heap);
	while (heap.count > 0 && !(s->full && better(s, worst_at(s), heap.items[0].bound_at))) {
		enum log_partial partial = log_budget_state(&s->budget);
		if (partial != LOG_WHOLE)
			return stop_early(s, partial, heap.items[0].bound_at, err);
		rc = step(s, &heap, err);
		if (rc < 0)
			return rc;
	}
	if (s->full)
		stop_full(s);
	return 0;
}

int log_query_run(struct log_store *s, const struct log_query *q, struct log_result *ret, struct err *err)
{
	assert(q->limit > 0 && q->limit <= LOG_QUERY_LIMIT_MAX);
	autovar(search) search = {
		.store = s,
		.query = q,
		.budget = q->budget,
		.one_attempt = q->job_id != 0 && q->attempt != LOG_QUERY_ANY_ATTEMPT,
	};
	const struct segment_key key = {q->org_id, q->job_id, q->attempt};

	int rc = search.one_attempt ? search_attempt(&search, &key, err) : search_many(&search, err);
	if (rc < 0)
		return rc;
	*ret = search.found;
	search.found = (struct log_result){0};
	return 0;
}

int log_query_last(struct log_store *s, const struct segment_key *key, const struct log_filter *filter, int64_t count,
		   struct log_budget *budget, int64_t *ret_seq, enum log_partial *ret_partial, struct err *err)
{
	const struct log_query all = {.filter = *filter};
	autovar(search) search = {.store = s, .query = &all, .one_attempt = true};
	const struct segment_lines *lines = &search.reader.lines;
	int64_t seq = INT64_MAX;

	*ret_partial = LOG_WHOLE;
	while (seq > 0 && *ret_partial == LOG_WHOLE) {
		struct attempts_seek seek = seek_from(&search, seq);
		int rc = log_store_read(s, key, &seek, filter->text.text.len > 0 ? &filter->text : NULL, &search.reader,
					err);
		if (rc < 0)
			return rc;
		if (rc == LOG_STORE_END) {
			seq = 0;
			break;
		}
		log_budget_take(budget, search.reader.block.raw_len);
		seq = search.reader.block.first_seq - 1;
		for (size_t i = lines->count; i-- > 0 && count > 0;) {
			if (log_filter_passes(filter, &lines->lines[i]) && --count == 0)
				seq = lines->lines[i].seq - 1;
		}
		if (count == 0)
			break;
		*ret_partial = seq > 0 ? log_budget_state(budget) : LOG_WHOLE;
	}
	*ret_seq = seq;
	return 0;
}
