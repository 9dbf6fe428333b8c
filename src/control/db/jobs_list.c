#include "control/db/jobs_list.h"

#include <assert.h>

#include "base/buf.h"
#include "base/clock.h"

/* Numbers are given under a lock and times just before: of two jobs the later may be older by so much at most. */
#define ORDER_NS (60 * NS_PER_S)
enum { ARGS_MAX = 10 + JOB_STATE_COUNT };

struct walk {
	const struct jobs_query *query;
	struct arena *arena;
	struct jobs_page page;
	int64_t from;  /* the first number that this page does not look at any more */
	int64_t least; /* and the last that it does */
};

/* A statement as it grows. */
struct text {
	struct buf buf;
	struct sql_arg args[ARGS_MAX];
	size_t count;
};

static void add(struct text *t, const char *condition, struct sql_arg arg)
{
	assert(t->count < ARGS_MAX);
	t->args[t->count++] = arg;
	buf_printf(&t->buf, " AND %s$%zu", condition, t->count);
}

static void add_states(struct text *t, unsigned states)
{
	const char *sep = " AND j.state IN (";

	for (int s = 0; s < JOB_STATE_COUNT; s++) {
		if ((states & 1U << s) == 0)
			continue;
		t->args[t->count++] = sql_text(job_state_text((enum job_state)s));
		buf_printf(&t->buf, "%s$%zu", sep, t->count);
		sep = ", ";
	}
	buf_putc(&t->buf, ')');
}

/* "%TEXT%" with what LIKE would take for more than itself made plain. */
static const char *anywhere(const char *text, struct arena *arena)
{
	autovar(buf) pattern = {0};

	buf_putc(&pattern, '%');
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '%' || *p == '_' || *p == '\\')
			buf_putc(&pattern, '\\');
		buf_putc(&pattern, *p);
	}
	buf_putc(&pattern, '%');
	return arena_str(arena, buf_str(&pattern));
}

static void write_text(const struct walk *w, struct text *t)
{
	const struct jobs_query *q = w->query;

	buf_puts(&t->buf, JOB_SELECT " WHERE 1 = 1");
	add(t, "j.id < ", sql_i64(w->from));
	add(t, "j.id >= ", sql_i64(w->least));
	if (q->org_id != 0)
		add(t, "j.org_id = ", sql_i64(q->org_id));
	if (q->states != 0)
		add_states(t, q->states);
	if (q->agent_id != NULL)
		add(t, "j.agent_id = ", sql_text(q->agent_id));
	if (q->repo != NULL) {
		add(t, "LOWER(j.repo_full_name) = LOWER(", sql_text(q->repo));
		buf_putc(&t->buf, ')');
	}
	if (q->since_at != 0)
		add(t, "j.created_at >= ", sql_i64(q->since_at));
	if (q->until_at != 0)
		add(t, "j.created_at < ", sql_i64(q->until_at));
	if (q->name != NULL) {
		add(t, "LOWER(j.name) LIKE LOWER(", sql_text(anywhere(q->name, w->arena)));
		buf_puts(&t->buf, ") ESCAPE '\\'");
	}
	if (q->label != NULL) {
		add(t, "EXISTS (SELECT 1 FROM label_set_member m WHERE m.label_set_id = j.label_set_id AND m.label = ",
		    sql_text(q->label));
		buf_putc(&t->buf, ')');
	}
	t->args[t->count++] = sql_i64(q->limit);
	buf_printf(&t->buf, " ORDER BY j.id DESC LIMIT $%zu", t->count);
}

static int read_page(struct sql_tx *tx, struct walk *w, struct err *err)
{
	struct text t = {0};
	autoptr(sql_rows) rows = NULL;

	write_text(w, &t);
	int rc = sql_query(tx, t.buf.data, &(struct sql_args){.items = t.args, .count = t.count}, &rows, err);
	buf_fini(&t.buf);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		struct job *job = &w->page.jobs[w->page.count];
		rc = job_from_row(rows, w->arena, job, err);
		if (rc == 0)
			rc = job_metadata_read(tx, w->arena, job, err);
		if (rc == 0)
			w->page.count++;
	}
	return rc;
}

/* Where the walk begins and, at most, ends. 0: there are no such jobs. */
static int find_span(struct sql_tx *tx, struct walk *w, struct err *err)
{
	int64_t newest = 0;
	int rc = sql_get_i64(tx, "SELECT id FROM job ORDER BY id DESC LIMIT 1", SQL_NO_ARGS, &newest, err);

	if (rc <= 0)
		return rc;
	w->from = newest + 1;
	if (w->query->before_id != 0 && w->query->before_id < w->from)
		w->from = w->query->before_id;
	w->least = w->from > JOBS_LIST_WALK ? w->from - JOBS_LIST_WALK : 1;
	return 1;
}

/* What stands behind the page, if anything that could be asked for does. */
static int find_next(struct sql_tx *tx, struct walk *w, struct err *err)
{
	bool full = w->page.count == (size_t)w->query->limit;
	int64_t next = full ? w->page.jobs[w->page.count - 1].id : w->least;
	int64_t created_at = 0;
	int rc = sql_get_i64(tx, "SELECT created_at FROM job WHERE id < $1 ORDER BY id DESC LIMIT 1",
			     SQL_ARGS(sql_i64(next)), &created_at, err);

	if (rc > 0 && created_at >= w->query->since_at - ORDER_NS)
		w->page.next_id = next;
	return rc < 0 ? rc : 0;
}

static int list_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct walk *w = ctx;

	w->page.count = 0;
	w->page.next_id = 0;
	int rc = find_span(tx, w, err);
	if (rc <= 0)
		return rc;
	rc = read_page(tx, w, err);
	return rc < 0 ? rc : find_next(tx, w, err);
}

int jobs_db_list(const struct control_db *db, const struct jobs_query *query, struct arena *arena,
		 struct jobs_page *ret, struct err *err)
{
	assert(query->limit >= 1 && query->limit <= JOBS_LIST_MAX);
	struct walk w = {.query = query, .arena = arena};

	w.page.jobs = arena_calloc(arena, (size_t)query->limit, sizeof(*w.page.jobs));
	int rc = sql_read(db->sql, list_fn, &w, err);
	if (rc == 0)
		*ret = w.page;
	return rc;
}

struct live {
	const char *agent_id;
	int64_t limit;
	struct arena *arena;
	struct job *jobs;
	size_t count;
};

#define LIVE_SELECT JOB_SELECT " JOIN lease a ON a.job_id = j.id"
#define LIVE_ORDER " ORDER BY j.id DESC LIMIT $1"

static int live_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct live *l = ctx;
	autoptr(sql_rows) rows = NULL;
	int rc = l->agent_id != NULL ? sql_query(tx, LIVE_SELECT " WHERE a.agent_id = $2" LIVE_ORDER,
						 SQL_ARGS(sql_i64(l->limit), sql_text(l->agent_id)), &rows, err)
				     : sql_query(tx, LIVE_SELECT LIVE_ORDER, SQL_ARGS(sql_i64(l->limit)), &rows, err);

	l->count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		rc = job_from_row(rows, l->arena, &l->jobs[l->count], err);
		l->count += rc == 0;
	}
	return rc;
}

int jobs_db_live(const struct control_db *db, const char *agent_id, int64_t limit, struct arena *arena,
		 struct job **ret, size_t *ret_count, struct err *err)
{
	struct live l = {.agent_id = agent_id, .limit = limit, .arena = arena};

	l.jobs = arena_calloc(arena, (size_t)limit, sizeof(*l.jobs));
	int rc = sql_read(db->sql, live_fn, &l, err);
	if (rc == 0) {
		*ret = l.jobs;
		*ret_count = l.count;
	}
	return rc;
}
