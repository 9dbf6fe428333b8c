#include "control/db/held_jobs.h"

int held_jobs_add(struct control_tx *t, int64_t org_id, int64_t job_id, int64_t next_at, struct err *err)
{
	int rc = sql_exec(t->tx, "INSERT INTO held_job (org_id, job_id) VALUES ($1, $2)",
			  SQL_ARGS(sql_i64(org_id), sql_i64(job_id)), NULL, err);

	if (rc < 0)
		return rc;
	return sql_exec(t->tx, "INSERT INTO held_org (org_id, next_at) VALUES ($1, $2) ON CONFLICT (org_id) DO NOTHING",
			SQL_ARGS(sql_i64(org_id), sql_i64(next_at)), NULL, err);
}

int held_jobs_remove(struct control_tx *t, int64_t org_id, int64_t job_id, struct err *err)
{
	return sql_exec(t->tx, "DELETE FROM held_job WHERE org_id = $1 AND job_id = $2",
			SQL_ARGS(sql_i64(org_id), sql_i64(job_id)), NULL, err);
}

int held_jobs_next(struct control_tx *t, int64_t org_id, int64_t *ret_next_at, struct err *err)
{
	return sql_get_i64(t->tx, "SELECT next_at FROM held_org WHERE org_id = $1", SQL_ARGS(sql_i64(org_id)),
			   ret_next_at, err);
}

int held_jobs_first(struct control_tx *t, int64_t org_id, int64_t *ids, size_t cap, size_t *ret_count, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(t->tx, "SELECT job_id FROM held_job WHERE org_id = $1 ORDER BY job_id LIMIT $2",
			   SQL_ARGS(sql_i64(org_id), sql_i64((int64_t)cap)), &rows, err);

	*ret_count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		ids[(*ret_count)++] = sql_col_i64(rows, 0);
	return rc;
}

int held_jobs_put_off(struct control_tx *t, int64_t org_id, int64_t next_at, bool none_left, struct err *err)
{
	if (none_left)
		return sql_exec(t->tx, "DELETE FROM held_org WHERE org_id = $1", SQL_ARGS(sql_i64(org_id)), NULL, err);
	return sql_exec(t->tx, "UPDATE held_org SET next_at = $2 WHERE org_id = $1",
			SQL_ARGS(sql_i64(org_id), sql_i64(next_at)), NULL, err);
}

int held_jobs_due(struct sql_tx *tx, int64_t now, int64_t *ret_org_id, struct err *err)
{
	return sql_get_i64(tx, "SELECT org_id FROM held_org WHERE next_at <= $1 ORDER BY next_at LIMIT 1",
			   SQL_ARGS(sql_i64(now)), ret_org_id, err);
}
