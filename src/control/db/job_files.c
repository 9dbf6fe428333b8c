#include "control/db/job_files.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "control/db/admission.h"
#include "control/db/job_move.h"
#include "model/job_extras.h"

enum { EXPIRE_BATCH = 64 };

int job_extras_of(const struct job *job, struct arena *arena, struct job_extras *ret, struct err *err)
{
	autoptr(js) v = NULL;

	*ret = (struct job_extras){0};
	if (job->extras == NULL)
		return 0;
	int rc = js_parse(str_c(job->extras), &v, err);
	return rc < 0 ? rc : js_decode(v, &job_extras_shape, arena, ret, err);
}

/* --- adding --- */

struct adding {
	const struct job_file *file;
	struct arena *arena;
	struct job job;
	const char *replaced;
};

bool job_files_wanted(const struct job *job)
{
	return job->state == JOB_PARKED && job->reason != NULL && strcmp(job->reason, JOB_FILES_REASON) == 0;
}

static int check(const struct adding *a, const struct job_extras *extras, struct err *err)
{
	const struct job_file *f = a->file;
	const struct job *job = &a->job;
	const struct js_texts *folders = f->kind == JOB_FILE_INPUT ? &extras->inputs : &extras->outputs;

	if (f->n < 0 || (size_t)f->n >= folders->count)
		return err_set(err, ERR_NOT_FOUND, "job %" PRId64 " has %zu %ss: there is no number %" PRId64, job->id,
			       folders->count, job_file_kind_text(f->kind), f->n);
	if (f->kind == JOB_FILE_INPUT && !job_files_wanted(job))
		return err_set(err, ERR_CONFLICT, "job %" PRId64 " is %s: it takes no more files", job->id,
			       job_state_text(job->state));
	if (f->kind == JOB_FILE_OUTPUT && (!job_state_live(job->state) || job->attempt != f->attempt))
		return err_set(err, ERR_CONFLICT, "attempt %" PRId64 " of job %" PRId64 " is over", f->attempt,
			       job->id);
	return 0;
}

static int write_row(struct control_tx *t, struct adding *a, struct err *err)
{
	const struct job_file *f = a->file;
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(t->tx, "SELECT blob FROM job_file WHERE job_id = $1 AND kind = $2 AND n = $3",
			   SQL_ARGS(sql_i64(f->job_id), sql_text(job_file_kind_text(f->kind)), sql_i64(f->n)), &rows,
			   err);

	a->replaced = NULL;
	if (rc == 0)
		rc = sql_next(rows, err);
	if (rc > 0)
		a->replaced = sql_col_dup(rows, 0, a->arena);
	if (rc < 0)
		return rc;
	return sql_exec(t->tx,
			"INSERT INTO job_file (job_id, kind, n, blob, size, sha256, stored_at)"
			" VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (job_id, kind, n) DO UPDATE SET"
			" blob = excluded.blob, size = excluded.size, sha256 = excluded.sha256,"
			" stored_at = excluded.stored_at",
			SQL_ARGS(sql_i64(f->job_id), sql_text(job_file_kind_text(f->kind)), sql_i64(f->n),
				 sql_text(f->blob), sql_i64(f->size), sql_text(f->sha256), sql_i64(t->now)),
			NULL, err);
}

/* All are there: it takes its turn as any new job does. */
static int let_in(struct control_tx *t, struct job *job, struct err *err)
{
	int rc = admission_ask(t, job->org_id, job->id, err);

	if (rc == ADMISSION_HELD) {
		job->reason = ADMISSION_REASON;
		return job_save(t, job, err);
	}
	return rc < 0 ? rc : job_move(t, job, JOB_QUEUED, NULL, err);
}

static int add_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct adding *a = ctx;
	struct job_extras extras = {0};
	int64_t there = 0;
	int rc = job_lock(t->tx, a->file->job_id, a->arena, &a->job, err);

	if (rc == 0)
		return err_set(err, ERR_NOT_FOUND, "Job not found: %" PRId64, a->file->job_id);
	if (rc > 0)
		rc = job_extras_of(&a->job, a->arena, &extras, err);
	if (rc == 0)
		rc = check(a, &extras, err);
	if (rc == 0)
		rc = write_row(t, a, err);
	if (rc < 0 || a->file->kind != JOB_FILE_INPUT)
		return rc;
	rc = sql_get_i64(t->tx, "SELECT COUNT(*) FROM job_file WHERE job_id = $1 AND kind = 'input'",
			 SQL_ARGS(sql_i64(a->job.id)), &there, err);
	if (rc < 0)
		return rc;
	return (size_t)there == extras.inputs.count ? let_in(t, &a->job, err) : 0;
}

int job_files_add(const struct control_db *db, const struct job_file *file, struct arena *arena, struct job *ret,
		  const char **ret_replaced, struct err *err)
{
	struct adding a = {.file = file, .arena = arena};
	int rc = control_write(db, add_fn, &a, err);

	if (rc == 0) {
		*ret = a.job;
		*ret_replaced = a.replaced;
	}
	return rc;
}

/* --- finding --- */

struct getting {
	int64_t job_id;
	enum job_file_kind kind;
	int64_t n;
	struct arena *arena;
	struct job_file file;
};

static int get_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct getting *g = ctx;
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx, "SELECT blob, size, sha256 FROM job_file WHERE job_id = $1 AND kind = $2 AND n = $3",
			   SQL_ARGS(sql_i64(g->job_id), sql_text(job_file_kind_text(g->kind)), sql_i64(g->n)), &rows,
			   err);

	if (rc == 0)
		rc = sql_next(rows, err);
	if (rc <= 0)
		return rc < 0 ? rc : JOB_FILES_NONE;
	g->file = (struct job_file){.job_id = g->job_id,
				    .kind = g->kind,
				    .n = g->n,
				    .blob = sql_col_dup(rows, 0, g->arena),
				    .size = sql_col_i64(rows, 1),
				    .sha256 = sql_col_dup(rows, 2, g->arena)};
	return 0;
}

int job_files_get(const struct control_db *db, int64_t job_id, enum job_file_kind kind, int64_t n, struct arena *arena,
		  struct job_file *ret, struct err *err)
{
	struct getting g = {.job_id = job_id, .kind = kind, .n = n, .arena = arena};
	int rc = sql_read(db->sql, get_fn, &g, err);

	if (rc == 0)
		*ret = g.file;
	return rc;
}

/* --- what has had its time --- */

struct expiring {
	int64_t age_ns;
	int64_t count;
};

static int find_overdue(struct control_tx *t, int64_t before, int64_t *ids, size_t *count, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(t->tx,
			   "SELECT id FROM job WHERE state = 'parked' AND reason = '" JOB_FILES_REASON
			   "' AND created_at < $1 ORDER BY id LIMIT $2",
			   SQL_ARGS(sql_i64(before), sql_i64(EXPIRE_BATCH)), &rows, err);

	*count = 0;
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		ids[(*count)++] = sql_col_i64(rows, 0);
	return rc;
}

static int expire_fn(struct control_tx *t, void *ctx, struct err *err)
{
	struct expiring *e = ctx;
	int64_t ids[EXPIRE_BATCH];
	size_t count = 0;
	int rc = find_overdue(t, t->now - e->age_ns, ids, &count, err);

	e->count = 0;
	for (size_t i = 0; i < count && rc >= 0; i++) {
		struct job job = {0};
		rc = job_lock(t->tx, ids[i], t->arena, &job, err);
		if (rc <= 0 || !job_files_wanted(&job))
			continue;
		job.message = arena_printf(t->arena, "its files did not come within %" PRId64 " minutes",
					   e->age_ns / (60 * NS_PER_S));
		rc = job_move(t, &job, JOB_CANCELLED, JOB_FILES_MISSING_REASON, err);
		e->count += rc == 0;
	}
	return rc < 0 ? rc : 0;
}

static int any_overdue(struct sql_tx *tx, void *ctx, struct err *err)
{
	const int64_t *before = ctx;
	int64_t count = 0;
	int rc = sql_get_i64(tx,
			     "SELECT COUNT(*) FROM job WHERE state = 'parked' AND reason = '" JOB_FILES_REASON
			     "' AND created_at < $1",
			     SQL_ARGS(sql_i64(*before)), &count, err);

	return rc < 0 ? rc : count > 0;
}

static int now_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct {
		const struct control_db *db;
		int64_t now;
	} *n = ctx;

	return control_now(n->db, tx, &n->now, err);
}

static int database_now(const struct control_db *db, int64_t *ret, struct err *err)
{
	struct {
		const struct control_db *db;
		int64_t now;
	} n = {.db = db};
	int rc = sql_read(db->sql, now_fn, &n, err);

	*ret = n.now;
	return rc;
}

int job_files_expire(const struct control_db *db, int64_t age_ns, int64_t *ret_count, struct err *err)
{
	struct expiring e = {.age_ns = age_ns};
	int64_t before = 0;
	int rc = database_now(db, &before, err);

	before -= age_ns;
	*ret_count = 0;
	if (rc == 0)
		rc = sql_read(db->sql, any_overdue, &before, err);
	if (rc > 0)
		rc = control_write(db, expire_fn, &e, err);
	*ret_count = e.count;
	return rc < 0 ? rc : 0;
}

/* --- rows of files that are over --- */

struct forgetting {
	const struct control_db *db;
	const struct job_file_rule *rule;
	struct job_file_place after;
	int64_t last_job; /* of none beyond */
	struct arena *arena;
	size_t seen;
	struct job_file_place last; /* that was seen */
	size_t count;
	struct job_file_place over[JOB_FILES_PAGE];
	struct job_file_names *names; /* theirs */
};

static int read_owner(struct sql_rows *rows, struct arena *arena, struct job_file_owner *ret, struct err *err)
{
	const struct job job = {.extras = sql_col_dup(rows, 6, arena)};
	struct job_extras extras = {0};

	*ret = (struct job_file_owner){.known = !sql_col_is_null(rows, 4), .completed_at = sql_col_i64(rows, 5)};
	if (!ret->known)
		return 0;
	int rc = job_state_parse(sql_col_text(rows, 4), &ret->state, err);
	if (rc == 0)
		rc = job_extras_of(&job, arena, &extras, err);
	ret->again = !extras.session;
	return rc;
}

static int judge_row(struct forgetting *g, struct sql_rows *rows, int64_t now, struct err *err)
{
	struct job_file_place *place = &g->last;
	struct job_file_owner owner;
	bool known = job_file_kind_parse(sql_col_text(rows, 1), &place->kind);
	int rc = read_owner(rows, g->arena, &owner, err);

	place->job_id = sql_col_i64(rows, 0);
	place->n = sql_col_i64(rows, 2);
	g->seen++;
	if (rc < 0 || !known || !job_file_over(place->kind, &owner, g->rule, now))
		return rc;
	g->names->items[g->count] = sql_col_dup(rows, 3, g->arena);
	g->over[g->count++] = *place;
	return 0;
}

static int find_over_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct forgetting *g = ctx;
	autoptr(sql_rows) rows = NULL;
	int64_t now = 0;
	int rc = control_now(g->db, tx, &now, err);

	g->seen = g->count = 0;
	if (rc == 0)
		rc = sql_query(tx,
			       "SELECT f.job_id, f.kind, f.n, f.blob, j.state, j.completed_at, j.extras"
			       " FROM job_file f LEFT JOIN job j ON j.id = f.job_id"
			       " WHERE (f.job_id, f.kind, f.n) > ($1, $2, $3) AND f.job_id <= $4"
			       " ORDER BY f.job_id, f.kind, f.n LIMIT $5",
			       SQL_ARGS(sql_i64(g->after.job_id), sql_text(job_file_kind_text(g->after.kind)),
					sql_i64(g->after.n), sql_i64(g->last_job), sql_i64(JOB_FILES_PAGE)),
			       &rows, err);
	while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
		rc = judge_row(g, rows, now, err);
	return rc;
}

/* What is over stays over: nothing leaves a final state, and a job in one takes no files. */
static int forget_fn(struct control_tx *t, void *ctx, struct err *err)
{
	const struct forgetting *g = ctx;
	int rc = 0;

	for (size_t i = 0; i < g->count && rc == 0; i++)
		rc = sql_exec(t->tx, "DELETE FROM job_file WHERE job_id = $1 AND kind = $2 AND n = $3",
			      SQL_ARGS(sql_i64(g->over[i].job_id), sql_text(job_file_kind_text(g->over[i].kind)),
				       sql_i64(g->over[i].n)),
			      NULL, err);
	return rc;
}

static int forget(struct forgetting *g, struct err *err)
{
	int rc = sql_read(g->db->sql, find_over_fn, g, err);

	if (rc == 0 && g->count > 0)
		rc = control_write(g->db, forget_fn, g, err);
	g->names->count = rc == 0 ? g->count : 0;
	return rc;
}

int job_files_forget(const struct control_db *db, const struct job_file_rule *rule, struct job_file_place *walk,
		     struct arena *arena, struct job_file_names *ret, struct err *err)
{
	struct forgetting g = {
		.db = db, .rule = rule, .after = *walk, .last_job = INT64_MAX, .arena = arena, .names = ret};
	int rc = forget(&g, err);

	if (rc == 0)
		*walk = g.seen == JOB_FILES_PAGE ? g.last : (struct job_file_place){0};
	return rc;
}

int job_files_forget_of(const struct control_db *db, const struct job_file_rule *rule, int64_t job_id,
			struct arena *arena, struct job_file_names *ret, struct err *err)
{
	struct forgetting g = {.db = db,
			       .rule = rule,
			       .after = {.job_id = job_id, .n = -1},
			       .last_job = job_id,
			       .arena = arena,
			       .names = ret};

	return forget(&g, err);
}

/* --- blobs without a row --- */

static int is_unknown(struct sql_tx *tx, const char *name, struct err *err)
{
	struct job_file_place place;
	int64_t count = 0;

	if (!job_file_name_parse(str_c(name), &place))
		return 0;
	int rc = sql_get_i64(tx,
			     "SELECT COUNT(*) FROM job_file WHERE job_id = $1 AND kind = $2 AND n = $3 AND blob = $4",
			     SQL_ARGS(sql_i64(place.job_id), sql_text(job_file_kind_text(place.kind)), sql_i64(place.n),
				      sql_text(name)),
			     &count, err);
	return rc < 0 ? rc : count == 0;
}

struct asking {
	const struct job_file_names *names;
	struct job_file_names *unknown;
};

static int unknown_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct asking *a = ctx;
	int rc = 0;

	a->unknown->count = 0;
	for (size_t i = 0; i < a->names->count && rc >= 0; i++) {
		rc = is_unknown(tx, a->names->items[i], err);
		if (rc > 0)
			a->unknown->items[a->unknown->count++] = a->names->items[i];
	}
	return rc < 0 ? rc : 0;
}

int job_files_unknown(const struct control_db *db, const struct job_file_names *names, struct job_file_names *ret,
		      struct err *err)
{
	struct asking a = {.names = names, .unknown = ret};

	ret->count = 0;
	return names->count > 0 ? sql_read(db->sql, unknown_fn, &a, err) : 0;
}
