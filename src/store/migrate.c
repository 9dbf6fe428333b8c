#include "store/migrate.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "store/migrations.h"
#include "store/sql_backend.h"

enum { PATIENCE_S = 60 };

struct upgrade {
	const struct sql *sql;
	const char *set;
	const struct migration *table;
	size_t count;
	int64_t now;
};

static int create_tables(struct sql_tx *tx, struct err *err)
{
	int rc = sql_exec(tx,
			  "CREATE TABLE IF NOT EXISTS schema_migrations (set_name TEXT NOT NULL,"
			  " version BIGINT NOT NULL, name TEXT NOT NULL, applied_at BIGINT NOT NULL,"
			  " PRIMARY KEY (set_name, version))",
			  SQL_NO_ARGS, NULL, err);

	return rc < 0 ? rc
		      : sql_exec(tx,
				 "CREATE TABLE IF NOT EXISTS schema_steps (set_name TEXT NOT NULL,"
				 " version BIGINT NOT NULL, oldest BIGINT NOT NULL, program TEXT, host TEXT,"
				 " PRIMARY KEY (set_name, version))",
				 SQL_NO_ARGS, NULL, err);
}

static const struct migration *find(const struct upgrade *up, int64_t version)
{
	for (size_t i = 0; i < up->count; i++) {
		const struct migration *m = &up->table[i];
		if (m->version == version && strcmp(m->set, up->set) == 0)
			return m;
	}
	return NULL;
}

static int64_t newest(const struct upgrade *up)
{
	int64_t version = 0;

	while (find(up, version + 1) != NULL)
		version++;
	return version;
}

static int read_version(struct sql_tx *tx, const char *set, int64_t *ret, struct err *err)
{
	int rc = sql_get_i64(tx, "SELECT MAX(version) FROM schema_migrations WHERE set_name = $1",
			     SQL_ARGS(sql_text(set)), ret, err);

	return rc < 0 ? rc : 0;
}

static int read_oldest(struct sql_tx *tx, const char *set, int64_t *ret, struct err *err)
{
	int rc = sql_get_i64(tx, "SELECT MAX(oldest) FROM schema_steps WHERE set_name = $1", SQL_ARGS(sql_text(set)),
			     ret, err);

	return rc < 0 ? rc : 0;
}

/* A newer program was here: whether it left something that this one can use. */
static int check_newer(struct sql_tx *tx, const struct upgrade *up, int64_t version, struct err *err)
{
	int64_t known = newest(up);
	int64_t oldest = 0;
	int rc = read_oldest(tx, up->set, &oldest, err);

	if (rc < 0)
		return rc;
	if (oldest > known)
		return err_set(err, ERR_CONFLICT,
			       "a newer nimbus has written it (schema %" PRId64 ", for programs that know %" PRId64
			       " at least; this one knows %" PRId64 "): run that one, or restore a backup from before",
			       version, oldest, known);
	return 0;
}

static int record(struct sql_tx *tx, const struct upgrade *up, const struct migration *m, struct err *err)
{
	char host[HOST_NAME_MAX + 1] = "";
	int rc = sql_exec(tx,
			  "INSERT INTO schema_migrations (set_name, version, name, applied_at)"
			  " VALUES ($1, $2, $3, $4)",
			  SQL_ARGS(sql_text(up->set), sql_i64(m->version), sql_text(m->name), sql_i64(up->now)), NULL,
			  err);

	if (rc < 0)
		return rc;
	(void)gethostname(host, sizeof(host) - 1);
	return sql_exec(tx,
			"INSERT INTO schema_steps (set_name, version, oldest, program, host)"
			" VALUES ($1, $2, $3, $4, $5)",
			SQL_ARGS(sql_text(up->set), sql_i64(m->version), sql_i64(m->oldest), sql_text(NIMBUS_VERSION),
				 sql_text(host)),
			NULL, err);
}

/* The next step, if there is one: 1 when a step was made. The version is read under the same lock. */
static int step(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct upgrade *up = ctx;
	int64_t version = 0;
	int rc = sql_lock_schema(tx, err);

	if (rc == 0)
		rc = create_tables(tx, err);
	if (rc == 0)
		rc = read_version(tx, up->set, &version, err);
	if (rc < 0)
		return rc;
	const struct migration *next = find(up, version + 1);
	if (next == NULL)
		return check_newer(tx, up, version, err);
	if (up->sql->migrating != NULL)
		up->sql->migrating(up->set, next->version, next->name);
	rc = sql_script(tx, next->text, err);
	if (rc < 0)
		return err_wrap(err, "migration %s/%04" PRId64 "_%s", next->set, next->version, next->name);
	rc = record(tx, up, next, err);
	return rc < 0 ? rc : 1;
}

/* Others hold a lock that a step needs, each time for long: it waits a little and tries again, so that it does not hold
 * up in turn everybody who comes after it in the queue for that lock. */
static bool pause_for_lock(int rc, int64_t deadline_ns)
{
	if (rc != -ERR_UNAVAILABLE || clock_monotonic_ns() > deadline_ns)
		return false;
	clock_pause((int64_t)(200 + crypto_random_below(300)) * NS_PER_MS);
	return true;
}

int sql_migrate_table(struct sql *sql, const char *set, const struct migration *table, size_t count, struct err *err)
{
	struct upgrade up = {.sql = sql, .set = set, .table = table, .count = count, .now = clock_unix_ns()};
	int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_S * NS_PER_S;
	bool made = false;
	int rc = 1;

	assert(newest(&up) > 0);
	while (rc > 0 || pause_for_lock(rc, deadline_ns)) {
		rc = sql_write(sql, step, &up, err);
		made = made || rc > 0;
	}
	if (made && sql->migrating != NULL)
		sql->migrating(set, 0, NULL);
	return rc < 0 ? err_wrap(err, "database %s", sql_shown(sql)) : 0;
}

int sql_migrate(struct sql *sql, const char *set, struct err *err)
{
	return sql_migrate_table(sql, set, migrations, migration_count, err);
}

/* --- status --- */

struct look {
	const struct upgrade *up;
	struct arena *arena;
	struct schema_status status;
	bool done;
};

static void add_step(struct look *l, const struct schema_step *step)
{
	struct schema_status *s = &l->status;
	struct schema_step *more = arena_calloc(l->arena, s->step_count + 1, sizeof(*more));

	for (size_t i = 0; i < s->step_count; i++)
		more[i] = s->steps[i];
	more[s->step_count++] = *step;
	s->steps = more;
}

static int read_steps(struct sql_tx *tx, struct look *l, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx,
			   "SELECT m.version, m.name, m.applied_at, s.program, s.host FROM schema_migrations m"
			   " LEFT JOIN schema_steps s ON s.set_name = m.set_name AND s.version = m.version"
			   " WHERE m.set_name = $1 ORDER BY m.version",
			   SQL_ARGS(sql_text(l->up->set)), &rows, err);

	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		add_step(l, &(struct schema_step){
				    .version = sql_col_i64(rows, 0),
				    .name = sql_col_dup(rows, 1, l->arena),
				    .applied_at = sql_col_i64(rows, 2),
				    .program = sql_col_dup(rows, 3, l->arena),
				    .host = sql_col_dup(rows, 4, l->arena),
			    });
	}
	return rc;
}

/* Looks as a migration would, so that a database without our tables is no special case, and undoes it all. */
static int look_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct look *l = ctx;
	struct schema_status *s = &l->status;
	const struct migration *next = NULL;

	*s = (struct schema_status){.newest = newest(l->up)};
	int rc = sql_lock_schema(tx, err);
	if (rc == 0)
		rc = create_tables(tx, err);
	if (rc == 0)
		rc = read_version(tx, l->up->set, &s->version, err);
	if (rc == 0)
		rc = read_oldest(tx, l->up->set, &s->oldest, err);
	if (rc == 0)
		rc = read_steps(tx, l, err);
	if (rc < 0)
		return rc;
	while ((next = find(l->up, s->version + (int64_t)s->pending + 1)) != NULL) {
		add_step(l, &(struct schema_step){.version = next->version, .name = next->name});
		s->pending++;
	}
	l->done = true;
	return err_set(err, ERR_CONFLICT, "nothing is to be changed");
}

int sql_schema_status(struct sql *sql, const char *set, struct arena *arena, struct schema_status *ret, struct err *err)
{
	const struct upgrade up = {.set = set, .table = migrations, .count = migration_count};
	struct look l = {.up = &up, .arena = arena};
	struct err why = {0};
	int rc = sql_write(sql, look_fn, &l, &why);

	if (!l.done) {
		*err = why;
		return rc;
	}
	*ret = l.status;
	return 0;
}

int64_t sql_schema_newest(const char *set)
{
	const struct upgrade up = {.set = set, .table = migrations, .count = migration_count};

	return newest(&up);
}
