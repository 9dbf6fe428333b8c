#include "control/db/rate_limit.h"

#include "base/clock.h"

/* Longer than clocks differ and transactions last. */
#define IDLE_NS (3600 * NS_PER_S)

/* One statement that makes the row where there is none and locks it where there is one. */
static int lock(struct sql_tx *tx, const char *key, int64_t *ret_tat, struct err *err)
{
	int rc = sql_get_i64(tx,
			     "INSERT INTO rate_limit (key, tat) VALUES ($1, 0)"
			     " ON CONFLICT (key) DO UPDATE SET tat = rate_limit.tat RETURNING tat",
			     SQL_ARGS(sql_text(key)), ret_tat, err);

	return rc < 0 ? rc : 0;
}

int rate_limit_lock(struct sql_tx *tx, const char *key, struct err *err)
{
	int64_t tat = 0;

	return lock(tx, key, &tat, err);
}

int rate_limit_take(struct sql_tx *tx, const char *key, int64_t limit, int64_t interval_ns, int64_t cost, int64_t now,
		    struct gcra_verdict *ret, struct err *err)
{
	const struct gcra g = {.limit = limit, .interval_ns = interval_ns};
	int64_t tat = 0;
	int rc = limit > 0 ? lock(tx, key, &tat, err) : 0;

	if (rc < 0)
		return rc;
	*ret = gcra_take(&g, tat, cost, now);
	if (ret->tat == tat)
		return 0;
	return sql_exec(tx, "UPDATE rate_limit SET tat = $2 WHERE key = $1", SQL_ARGS(sql_text(key), sql_i64(ret->tat)),
			NULL, err);
}

struct pass {
	const char *key;
	const struct gcra *limit;
	const struct control_db *db;
	struct gcra_verdict verdict;
};

static int look_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct pass *p = ctx;
	int64_t tat = 0;
	int64_t now = 0;
	int rc = control_now(p->db, tx, &now, err);

	if (rc == 0)
		rc = sql_get_i64(tx, "SELECT tat FROM rate_limit WHERE key = $1", SQL_ARGS(sql_text(p->key)), &tat,
				 err);
	if (rc >= 0)
		p->verdict = gcra_take(p->limit, tat, 1, now);
	return rc < 0 ? rc : 0;
}

static int pass_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct pass *p = ctx;

	return rate_limit_take(t->tx, p->key, p->limit->limit, p->limit->interval_ns, 1, t->now, &p->verdict, err);
}

int rate_limit_pass(const struct control_db *db, const char *key, const struct gcra *limit, struct gcra_verdict *ret,
		    struct err *err)
{
	struct pass p = {.key = key, .limit = limit, .db = db};
	int rc = sql_read(db->sql, look_fn, &p, err);

	if (rc == 0 && p.verdict.allowed)
		rc = control_write(db, pass_fn, &p, err);
	if (rc == 0)
		*ret = p.verdict;
	return rc;
}

static int prune_fn(struct control_tx *t, void *ctx, struct err *err)
{
	int64_t *count = ctx;

	return sql_exec(t->tx, "DELETE FROM rate_limit WHERE tat < $1", SQL_ARGS(sql_i64(t->now - IDLE_NS)), count,
			err);
}

int rate_limit_prune(const struct control_db *db, int64_t *ret_count, struct err *err)
{
	int64_t count = 0;
	int rc = control_write(db, prune_fn, &count, err);

	if (rc == 0)
		*ret_count = count;
	return rc;
}
