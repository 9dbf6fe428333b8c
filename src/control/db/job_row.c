#include "control/db/job_row.h"

#include <string.h>

/* Reads columns in the order of JOB_SELECT. */
struct reader {
	struct sql_rows *rows;
	struct arena *arena;
	unsigned column;
};

static int64_t number(struct reader *r)
{
	return sql_col_i64(r->rows, r->column++);
}

static int64_t number_or(struct reader *r, int64_t none)
{
	return sql_col_is_null(r->rows, r->column) ? (void)r->column++, none : number(r);
}

static const char *text(struct reader *r)
{
	return sql_col_dup(r->rows, r->column++, r->arena);
}

/* What we wrote ourselves: an error is a damaged database. */
static int json(struct reader *r, struct js **ret, struct err *err)
{
	int rc = js_parse(sql_col_text(r->rows, r->column++), ret, err);

	return rc < 0 ? err_wrap(err, "a job's stored JSON") : 0;
}

static int read_argv(struct reader *r, struct js_texts *ret, struct err *err)
{
	autoptr(js) v = NULL;
	int rc = json(r, &v, err);

	if (rc < 0)
		return rc;
	ret->count = js_len(v);
	ret->items = arena_calloc(r->arena, ret->count, sizeof(*ret->items));
	for (size_t i = 0; i < ret->count; i++)
		ret->items[i] = arena_strdup(r->arena, js_text(js_at(v, i), ""));
	return 0;
}

static int read_env(struct reader *r, struct js_pairs *ret, struct err *err)
{
	autoptr(js) v = NULL;
	int rc = json(r, &v, err);
	void *iter = NULL;
	const char *key = NULL;
	const struct js *value = NULL;

	if (rc < 0)
		return rc;
	while (js_each(v, &iter, &key, &value))
		ret->count++;
	ret->items = arena_calloc(r->arena, ret->count, sizeof(*ret->items));
	ret->count = 0;
	iter = NULL;
	while (js_each(v, &iter, &key, &value)) {
		ret->items[ret->count].key = arena_strdup(r->arena, key);
		ret->items[ret->count++].value = arena_strdup(r->arena, js_text(value, ""));
	}
	return 0;
}

static int read_labels(struct reader *r, struct job *job, struct err *err)
{
	struct label_set set = {0};

	job->label_key = text(r);
	int rc = label_set_from_key(str_c(job->label_key), r->arena, &set, err);
	if (rc == 0)
		job->labels = (struct js_texts){.items = set.items, .count = set.count};
	return rc;
}

static int read_state(struct reader *r, enum job_state *ret, struct err *err)
{
	return job_state_parse(sql_col_text(r->rows, r->column++), ret, err);
}

int job_from_row(struct sql_rows *rows, struct arena *arena, struct job *ret, struct err *err)
{
	struct reader r = {.rows = rows, .arena = arena};
	struct job job = {0};
	int rc = 0;

	job.id = number(&r);
	job.org_id = number(&r);
	job.name = text(&r);
	job.origin = text(&r);
	job.image = text(&r);
	rc = read_argv(&r, &job.argv, err);
	if (rc == 0)
		rc = read_env(&r, &job.env, err);
	if (rc == 0)
		rc = read_labels(&r, &job, err);
	if (rc < 0)
		return rc;
	job.label_set_id = number(&r);
	job.executor = text(&r);
	job.vcpus = number(&r);
	job.memory_mb = number(&r);
	job.disk_mb = number(&r);
	job.timeout_s = number(&r);
	job.has_secret_env = number(&r) != 0;
	rc = read_state(&r, &job.state, err);
	if (rc < 0)
		return rc;
	job.reason = text(&r);
	job.message = text(&r);
	job.attempt = number(&r);
	job.max_attempts = number(&r);
	job.fence = number(&r);
	job.moves = job.saved_moves = number(&r);
	job.agent_id = text(&r);
	job.exit_code = number_or(&r, -1);
	job.signal = number(&r);
	job.last_seq = number_or(&r, -1);
	job.cancel_requested_at = number(&r);
	job.idempotency_key = text(&r);
	job.github_job_id = number(&r);
	job.github_rank = number(&r);
	job.conclusion = text(&r);
	job.run_id = number(&r);
	job.run_attempt = number(&r);
	job.repo_id = number(&r);
	job.repo_full_name = text(&r);
	job.repo_html_url = text(&r);
	job.repo_private = number(&r) != 0;
	job.created_at = number(&r);
	job.queued_at = number(&r);
	job.leased_at = number(&r);
	job.started_at = number(&r);
	job.completed_at = number(&r);
	job.updated_at = number(&r);
	job.network = text(&r);
	job.extras = text(&r);
	job.image_digest = text(&r);
	*ret = job;
	return 0;
}

int job_read_where(struct sql_tx *tx, const char *select, const struct sql_args *args, struct arena *arena,
		   struct job *ret, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx, select, args, &rows, err);

	if (rc == 0)
		rc = sql_next(rows, err);
	if (rc <= 0)
		return rc;
	rc = job_from_row(rows, arena, ret, err);
	return rc < 0 ? rc : 1;
}

int job_read(struct sql_tx *tx, int64_t id, struct arena *arena, struct job *ret, struct err *err)
{
	return job_read_where(tx, JOB_SELECT " WHERE j.id = $1", SQL_ARGS(sql_i64(id)), arena, ret, err);
}

int job_lock(struct sql_tx *tx, int64_t id, struct arena *arena, struct job *ret, struct err *err)
{
	return job_read_where(tx, JOB_SELECT " WHERE j.id = $1 FOR UPDATE OF j", SQL_ARGS(sql_i64(id)), arena, ret,
			      err);
}

int job_metadata_merge(struct sql_tx *tx, int64_t job_id, const struct js_pairs *metadata, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < metadata->count && rc == 0; i++) {
		const struct js_pair *pair = &metadata->items[i];
		if (strlen(pair->key) + strlen(pair->value) > JOB_METADATA_BYTES_MAX)
			continue;
		rc = sql_exec(tx,
			      "INSERT INTO job_metadata (job_id, key, value) SELECT $1, $2, $3"
			      " WHERE (SELECT COUNT(*) FROM job_metadata WHERE job_id = $1) < $4"
			      " OR EXISTS (SELECT 1 FROM job_metadata WHERE job_id = $1 AND key = $2)"
			      " ON CONFLICT (job_id, key) DO UPDATE SET value = excluded.value",
			      SQL_ARGS(sql_i64(job_id), sql_text(pair->key), sql_text(pair->value),
				       sql_i64(JOB_METADATA_MAX)),
			      NULL, err);
	}
	return rc;
}

int job_booted_image(struct sql_tx *tx, int64_t job_id, struct arena *arena, const char **ret, struct err *err)
{
	autoptr(sql_rows) rows = NULL;

	*ret = NULL;
	int rc = sql_query(tx, "SELECT value FROM job_metadata WHERE job_id = $1 AND key = 'rootfs_hash'",
			   SQL_ARGS(sql_i64(job_id)), &rows, err);
	if (rc == 0)
		rc = sql_next(rows, err);
	if (rc > 0)
		*ret = sql_col_dup(rows, 0, arena);
	return rc < 0 ? rc : 0;
}

int job_metadata_read(struct sql_tx *tx, struct arena *arena, struct job *job, struct err *err)
{
	int64_t count = 0;
	int rc = sql_get_i64(tx, "SELECT COUNT(*) FROM job_metadata WHERE job_id = $1", SQL_ARGS(sql_i64(job->id)),
			     &count, err);

	if (rc < 0 || count == 0)
		return rc < 0 ? rc : 0;
	autoptr(sql_rows) rows = NULL;
	rc = sql_query(tx, "SELECT key, value FROM job_metadata WHERE job_id = $1 ORDER BY key",
		       SQL_ARGS(sql_i64(job->id)), &rows, err);
	if (rc < 0)
		return rc;
	job->metadata = (struct js_pairs){.items = arena_calloc(arena, (size_t)count, sizeof(struct js_pair))};
	while (job->metadata.count < (size_t)count && (rc = sql_next(rows, err)) > 0) {
		job->metadata.items[job->metadata.count].key = sql_col_dup(rows, 0, arena);
		job->metadata.items[job->metadata.count++].value = sql_col_dup(rows, 1, arena);
	}
	return rc < 0 ? rc : 0;
}
