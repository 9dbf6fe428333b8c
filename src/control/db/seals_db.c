#include "control/db/seals_db.h"

#include "base/clock.h"

#define PAUSE_MAX_NS (60 * NS_PER_S)
/* How long another control plane has for its own. */
#define OTHERS_NS (5 * NS_PER_S)

int seal_add(struct control_tx *t, int64_t job_id, int64_t attempt, int64_t org_id, int64_t last_seq, struct err *err)
{
	return sql_exec(t->tx,
			"INSERT INTO log_seal (job_id, attempt, org_id, last_seq, tries, next_at, plane)"
			" VALUES ($1, $2, $3, $4, 0, $5, $6) ON CONFLICT (job_id, attempt) DO NOTHING",
			SQL_ARGS(sql_i64(job_id), sql_i64(attempt), sql_i64(org_id),
				 last_seq < 0 ? sql_null() : sql_i64(last_seq), sql_i64(t->now),
				 sql_text(t->db->plane)),
			NULL, err);
}

struct take {
	const struct control_db *db;
	int64_t limit;
	struct seal *items;
	size_t count;
};

static int take_rows(struct sql_tx *tx, struct take *take, const char *text, int64_t until, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(
		tx, text,
		SQL_ARGS(sql_i64(until), sql_i64(take->limit - (int64_t)take->count), sql_text(take->db->plane)), &rows,
		err);

	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		take->items[take->count++] = (struct seal){
			.job_id = sql_col_i64(rows, 0),
			.attempt = sql_col_i64(rows, 1),
			.org_id = sql_col_i64(rows, 2),
			.last_seq = sql_col_is_null(rows, 3) ? -1 : sql_col_i64(rows, 3),
			.tries = sql_col_i64(rows, 4),
		};
	}
	return rc;
}

#define SEAL_SELECT "SELECT job_id, attempt, org_id, last_seq, tries FROM log_seal"

/* What this control plane has to do, then what another should have done by now. */
static int take_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct take *take = ctx;
	int64_t now = 0;
	int rc = control_now(take->db, tx, &now, err);

	take->count = 0;
	if (rc == 0)
		rc = take_rows(tx, take, SEAL_SELECT " WHERE plane = $3 AND next_at <= $1 ORDER BY next_at LIMIT $2",
			       now, err);
	if (rc == 0 && (int64_t)take->count < take->limit)
		rc = take_rows(tx, take,
			       SEAL_SELECT " WHERE (plane IS NULL OR plane <> $3) AND next_at <= $1 ORDER BY next_at"
					   " LIMIT $2",
			       now - OTHERS_NS, err);
	return rc;
}

int seals_db_take(const struct control_db *db, int64_t limit, struct arena *arena, struct seal **ret, size_t *ret_count,
		  struct err *err)
{
	struct take take = {.db = db, .limit = limit};

	take.items = arena_calloc(arena, (size_t)limit, sizeof(*take.items));
	int rc = sql_read(db->sql, take_fn, &take, err);
	if (rc == 0) {
		*ret = take.items;
		*ret_count = take.count;
	}
	return rc;
}

static int done_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct seal *seal = ctx;

	return sql_exec(t->tx, "DELETE FROM log_seal WHERE job_id = $1 AND attempt = $2",
			SQL_ARGS(sql_i64(seal->job_id), sql_i64(seal->attempt)), NULL, err);
}

int seals_db_done(const struct control_db *db, const struct seal *seal, struct err *err)
{
	struct seal copy = *seal;

	return control_write(db, done_fn, &copy, err);
}

struct retry {
	const struct seal *seal;
	const char *why;
};

/* 100 ms, 200 ms ... a minute. */
static int64_t pause_ns(int64_t tries)
{
	int64_t pause = 100 * NS_PER_MS << (tries < 10 ? tries : 10);

	return pause < PAUSE_MAX_NS ? pause : PAUSE_MAX_NS;
}

static int retry_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct retry *r = ctx;

	return sql_exec(t->tx,
			"UPDATE log_seal SET tries = $3, next_at = $4, error = $5 WHERE job_id = $1 AND attempt = $2",
			SQL_ARGS(sql_i64(r->seal->job_id), sql_i64(r->seal->attempt), sql_i64(r->seal->tries + 1),
				 sql_i64(t->now + pause_ns(r->seal->tries)), sql_text(r->why)),
			NULL, err);
}

int seals_db_retry(const struct control_db *db, const struct seal *seal, const char *why, struct err *err)
{
	struct retry r = {.seal = seal, .why = why};

	return control_write(db, retry_fn, &r, err);
}

static int count_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int64_t *count = ctx;
	int rc = sql_get_i64(tx, "SELECT COUNT(*) FROM log_seal", SQL_NO_ARGS, count, err);

	return rc < 0 ? rc : 0;
}

int seals_db_count(const struct control_db *db, int64_t *ret, struct err *err)
{
	return sql_read(db->sql, count_fn, ret, err);
}
