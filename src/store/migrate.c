#include "store/migrate.h"

#include <assert.h>
#include <inttypes.h>

#include "base/clock.h"
#include "store/migrations.h"
#include "store/sql_backend.h"

struct upgrade {
	const char *set;
	const struct migration *table;
	size_t count;
	int64_t now;
};

static int create_table(struct sql_tx *tx, struct err *err)
{
	return sql_exec(tx,
			"CREATE TABLE IF NOT EXISTS schema_migrations (set_name TEXT NOT NULL, version BIGINT NOT NULL,"
			" name TEXT NOT NULL, applied_at BIGINT NOT NULL, PRIMARY KEY (set_name, version))",
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

/* The next step, if there is one: 1 when a step was made. The version is read in the same transaction, so that two
 * programs that start at once make each step once. */
static int step(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct upgrade *up = ctx;
	int64_t version = 0;
	int rc = sql_lock_schema(tx, err);

	if (rc == 0)
		rc = create_table(tx, err);
	if (rc < 0)
		return rc;
	rc = sql_get_i64(tx, "SELECT MAX(version) FROM schema_migrations WHERE set_name = $1",
			 SQL_ARGS(sql_text(up->set)), &version, err);
	if (rc < 0)
		return rc;
	if (version > newest(up))
		return err_set(err, ERR_CONFLICT,
			       "a newer nimbus has written it (schema %" PRId64 ", this program knows %" PRId64
			       "): run that one, or restore a backup from before",
			       version, newest(up));
	const struct migration *next = find(up, version + 1);
	if (next == NULL)
		return 0;
	rc = sql_script(tx, next->text, err);
	if (rc < 0)
		return err_wrap(err, "migration %s/%04" PRId64 "_%s", next->set, next->version, next->name);
	rc = sql_exec(tx, "INSERT INTO schema_migrations (set_name, version, name, applied_at) VALUES ($1, $2, $3, $4)",
		      SQL_ARGS(sql_text(up->set), sql_i64(next->version), sql_text(next->name), sql_i64(up->now)), NULL,
		      err);
	return rc < 0 ? rc : 1;
}

int sql_migrate_table(struct sql *sql, const char *set, const struct migration *table, size_t count, struct err *err)
{
	struct upgrade up = {.set = set, .table = table, .count = count, .now = clock_unix_ns()};
	int rc = 1;

	assert(newest(&up) > 0);
	while (rc > 0)
		rc = sql_write(sql, step, &up, err);
	return rc < 0 ? err_wrap(err, "database %s", sql_shown(sql)) : 0;
}

int sql_migrate(struct sql *sql, const char *set, struct err *err)
{
	return sql_migrate_table(sql, set, migrations, migration_count, err);
}
