#include "control/db/deliveries_db.h"

#include <assert.h>

#include "base/buf.h"
#include "base/clock.h"

enum { TRIES_MAX = 10, TAKE_BYTES_MAX = 32 << 20 };
/* How long another control plane has for its own. */
#define OTHERS_NS (2 * NS_PER_S)

/* A nonce that is over and was not forgotten yet is as good as a new one. */
static int remember_nonce(struct control_tx *t, const struct new_delivery *d, struct err *err)
{
	int64_t changed = 0;
	int rc = sql_exec(t->tx,
			  "INSERT INTO webhook_nonce (nonce, forget_at) VALUES ($1, $2) ON CONFLICT (nonce)"
			  " DO UPDATE SET forget_at = excluded.forget_at WHERE webhook_nonce.forget_at <= $3",
			  SQL_ARGS(sql_text(d->nonce), sql_i64(t->now + d->nonce_life_ns), sql_i64(t->now)), &changed,
			  err);

	return rc < 0 || changed > 0 ? rc : DELIVERIES_DB_REPLAYED;
}

static int accept_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct new_delivery *d = ctx;
	int64_t changed = 0;
	int rc = d->nonce != NULL ? remember_nonce(t, d, err) : 0;

	if (rc != 0)
		return rc;
	rc = sql_exec(t->tx,
		      "INSERT INTO delivery (id, event, body, received_at, state, tries, next_at, plane)"
		      " VALUES ($1, $2, $3, $4, 'new', 0, $4, $5) ON CONFLICT (id) DO UPDATE SET"
		      " body = excluded.body, state = 'new', tries = 0, next_at = excluded.next_at,"
		      " plane = excluded.plane WHERE delivery.state = 'failed'",
		      SQL_ARGS(sql_text(d->id), sql_text(d->event), sql_blob(d->body), sql_i64(t->now),
			       sql_text(t->db->plane)),
		      &changed, err);
	return rc < 0 || changed > 0 ? rc : DELIVERIES_DB_DOUBLED;
}

int deliveries_db_accept(const struct control_db *db, const struct new_delivery *delivery, struct err *err)
{
	struct new_delivery copy = *delivery;

	return control_write(db, accept_fn, &copy, err);
}

static int forget_fn(struct control_tx *t, void *ctx, struct err *err)
{
	int64_t *left = ctx;
	int rc = sql_exec(t->tx, "DELETE FROM webhook_nonce WHERE forget_at <= $1", SQL_ARGS(sql_i64(t->now)), NULL,
			  err);

	if (rc == 0)
		rc = sql_get_i64(t->tx, "SELECT COUNT(*) FROM webhook_nonce", SQL_NO_ARGS, left, err);
	return rc < 0 ? rc : 0;
}

int deliveries_db_forget_nonces(const struct control_db *db, int64_t *ret_left, struct err *err)
{
	int64_t left = 0;
	int rc = control_write(db, forget_fn, &left, err);

	if (rc == 0)
		*ret_left = left;
	return rc;
}

struct take {
	const struct control_db *db;
	int64_t limit;
	struct arena *arena;
	struct delivery *items;
	size_t count;
	size_t bytes;
};

#define DELIVERY_SELECT "SELECT id, event, body, received_at, tries FROM delivery WHERE state = 'new'"

static int take_rows(struct sql_tx *tx, struct take *take, const char *text, const struct sql_args *args,
		     struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx, text, args, &rows, err);

	while (rc >= 0 && take->bytes < TAKE_BYTES_MAX && (rc = sql_next(rows, err)) > 0) {
		struct str body = sql_col_blob(rows, 2);
		take->bytes += body.len;
		take->items[take->count++] = (struct delivery){
			.id = sql_col_dup(rows, 0, take->arena),
			.event = sql_col_dup(rows, 1, take->arena),
			.body = {arena_str(take->arena, body), body.len},
			.received_at = sql_col_i64(rows, 3),
			.tries = sql_col_i64(rows, 4),
		};
	}
	return rc < 0 ? rc : 0;
}

/* What this control plane has accepted, then what another has left standing. */
static int take_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct take *take = ctx;
	int64_t now = 0;
	int rc = control_now(take->db, tx, &now, err);

	take->count = 0;
	take->bytes = 0;
	if (rc == 0)
		rc = take_rows(tx, take,
			       DELIVERY_SELECT " AND plane = $3 AND next_at <= $1 ORDER BY received_at LIMIT $2",
			       SQL_ARGS(sql_i64(now), sql_i64(take->limit), sql_text(take->db->plane)), err);
	if (rc == 0 && (int64_t)take->count < take->limit)
		rc = take_rows(tx, take,
			       DELIVERY_SELECT " AND (plane IS NULL OR plane <> $3) AND received_at <= $4"
					       " AND next_at <= $1 ORDER BY received_at LIMIT $2",
			       SQL_ARGS(sql_i64(now), sql_i64(take->limit - (int64_t)take->count),
					sql_text(take->db->plane), sql_i64(now - OTHERS_NS)),
			       err);
	return rc;
}

int deliveries_db_take(const struct control_db *db, int64_t limit, struct arena *arena, struct delivery **ret,
		       size_t *ret_count, struct err *err)
{
	struct take take = {.db = db, .limit = limit, .arena = arena};

	take.items = arena_calloc(arena, (size_t)limit, sizeof(*take.items));
	int rc = sql_read(db->sql, take_fn, &take, err);
	if (rc == 0) {
		*ret = take.items;
		*ret_count = take.count;
	}
	return rc;
}

static int write_end(struct control_tx *t, const struct delivery_end *end, int64_t job_id, struct err *err)
{
	return sql_exec(t->tx,
			"UPDATE delivery SET state = $2, job_id = $3, result = $4, processed_at = $5, body = NULL"
			" WHERE id = $1",
			SQL_ARGS(sql_text(end->id), sql_text(end->refusal != NULL ? "refused" : "job"),
				 sql_i64_or_null(job_id), sql_text(end->refusal), sql_i64(t->now)),
			NULL, err);
}

struct ends {
	const struct delivery_end *items;
	size_t count;
	size_t ended;
};

/* Those that nobody has ended meanwhile, or ends now. */
static int lock_new(struct control_tx *t, const struct ends *ends, struct delivery_end *list, size_t *ret_count,
		    struct err *err)
{
	struct sql_arg args[DELIVERIES_DB_END_MAX];
	bool ours[DELIVERIES_DB_END_MAX] = {0};
	autovar(buf) text = {0};
	autoptr(sql_rows) rows = NULL;

	buf_puts(&text, "SELECT id FROM delivery WHERE state = 'new' AND id IN (");
	for (size_t i = 0; i < ends->count; i++) {
		args[i] = sql_text(ends->items[i].id);
		buf_printf(&text, "%s$%zu", i > 0 ? ", " : "", i + 1);
	}
	buf_puts(&text, ") FOR UPDATE SKIP LOCKED");
	int rc = sql_query(t->tx, text.data, &(struct sql_args){args, ends->count}, &rows, err);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		for (size_t i = 0; i < ends->count; i++)
			ours[i] = ours[i] || str_eq(sql_col_text(rows, 0), str_c(ends->items[i].id));
	*ret_count = 0;
	for (size_t i = 0; i < ends->count; i++)
		if (ours[i])
			list[(*ret_count)++] = ends->items[i];
	return rc;
}

/* What all of them may need, before any is looked at: the numbers of new jobs, then the jobs they are about, in one
 * order. */
static int lock_jobs(struct control_tx *t, const struct delivery_end *list, size_t count, struct err *err)
{
	struct sql_arg args[DELIVERIES_DB_END_MAX];
	autovar(buf) text = {0};
	autoptr(sql_rows) rows = NULL;
	size_t wanted = 0;
	int64_t number = 0;

	buf_puts(&text, "SELECT id FROM job WHERE github_job_id IN (");
	for (size_t i = 0; i < count; i++) {
		if (list[i].refusal != NULL)
			continue;
		args[wanted++] = sql_i64(list[i].fold.event->job_id);
		buf_printf(&text, "%s$%zu", wanted > 1 ? ", " : "", wanted);
	}
	if (wanted == 0)
		return 0;
	buf_puts(&text, ") ORDER BY id FOR UPDATE");
	int rc = sql_get_i64(t->tx, "SELECT value FROM sequence WHERE name = 'job' FOR UPDATE", SQL_NO_ARGS, &number,
			     err);
	if (rc >= 0)
		rc = sql_query(t->tx, text.data, &(struct sql_args){args, wanted}, &rows, err);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		continue;
	return rc;
}

static int end_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct ends *ends = ctx;
	struct delivery_end *list = arena_calloc(t->arena, ends->count, sizeof(*list));
	int rc = lock_new(t, ends, list, &ends->ended, err);

	if (rc == 0)
		rc = lock_jobs(t, list, ends->ended, err);
	for (size_t i = 0; i < ends->ended && rc >= 0; i++) {
		struct job job = {0};

		if (list[i].refusal == NULL)
			rc = github_fold(t, &list[i].fold, &job, err);
		if (rc >= 0)
			rc = write_end(t, &list[i], job.id, err);
	}
	return rc;
}

int deliveries_db_end(const struct control_db *db, const struct delivery_end *ends, size_t count, struct err *err)
{
	struct ends all = {.items = ends, .count = count};

	assert(count > 0 && count <= DELIVERIES_DB_END_MAX);
	int rc = control_write(db, end_fn, &all, err);
	return rc >= 0 && all.ended == 0 ? DELIVERIES_DB_ELSEWHERE : rc;
}

struct mark {
	const char *id;
	const char *why;
};

/* 1 s, 2 s, 4 s ... */
static int64_t pause_ns(int64_t tries)
{
	return NS_PER_S << (tries < TRIES_MAX ? tries : TRIES_MAX);
}

static int retry_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct mark *m = ctx;
	int64_t tries = 0;
	int rc = sql_get_i64(t->tx, "SELECT tries FROM delivery WHERE id = $1 AND state = 'new' FOR UPDATE",
			     SQL_ARGS(sql_text(m->id)), &tries, err);

	if (rc <= 0)
		return rc;
	return sql_exec(t->tx, "UPDATE delivery SET state = $2, tries = $3, next_at = $4, result = $5 WHERE id = $1",
			SQL_ARGS(sql_text(m->id), sql_text(tries + 1 < TRIES_MAX ? "new" : "failed"),
				 sql_i64(tries + 1), sql_i64(t->now + pause_ns(tries)), sql_text(m->why)),
			NULL, err);
}

int deliveries_db_retry(const struct control_db *db, const char *id, const char *why, struct err *err)
{
	struct mark m = {.id = id, .why = why};

	return control_write(db, retry_fn, &m, err);
}

static int counts_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct deliveries_counts *counts = ctx;
	autoptr(sql_rows) rows = NULL;
	const struct {
		struct str state;
		int64_t *count;
	} states[] = {
		{STR("new"), &counts->waiting},
		{STR("refused"), &counts->refused},
		{STR("job"), &counts->jobs},
		{STR("failed"), &counts->failed},
	};

	*counts = (struct deliveries_counts){0};
	int rc = sql_query(tx, "SELECT state, COUNT(*) FROM delivery GROUP BY state", SQL_NO_ARGS, &rows, err);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		for (size_t i = 0; i < ARRAY_LEN(states); i++) {
			if (str_eq(sql_col_text(rows, 0), states[i].state))
				*states[i].count = sql_col_i64(rows, 1);
		}
	}
	return rc;
}

int deliveries_db_counts(const struct control_db *db, struct deliveries_counts *ret, struct err *err)
{
	return sql_read(db->sql, counts_fn, ret, err);
}

static int waiting_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int64_t *count = ctx;
	int rc = sql_get_i64(tx, "SELECT COUNT(*) FROM delivery WHERE state = 'new'", SQL_NO_ARGS, count, err);

	return rc < 0 ? rc : 0;
}

int deliveries_db_waiting(const struct control_db *db, int64_t *ret, struct err *err)
{
	return sql_read(db->sql, waiting_fn, ret, err);
}
