#include "store/migrate.h"

#include <assert.h>
#include <inttypes.h>
#include <time.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "store/migrations.h"
#include "store/sql_backend.h"

enum { PATIENCE_S = 60 };

struct upgrade {
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
				 "CREATE TABLE IF NOT EXISTS schema_contract (set_name TEXT NOT NULL,"
				 " version BIGINT NOT NULL, oldest BIGINT NOT NULL, PRIMARY KEY (set_name, version))",
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

/* A newer program was here: whether it left something that this one can use. */
static int check_newer(struct sql_tx *tx, const struct upgrade *up, int64_t version, struct err *err)
{
	int64_t known = newest(up);
	int64_t oldest = 0;
	int rc = sql_get_i64(tx, "SELECT MAX(oldest) FROM schema_contract WHERE set_name = $1",
			     SQL_ARGS(sql_text(up->set)), &oldest, err);

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
	int rc = sql_exec(tx,
			  "INSERT INTO schema_migrations (set_name, version, name, applied_at)"
			  " VALUES ($1, $2, $3, $4)",
			  SQL_ARGS(sql_text(up->set), sql_i64(m->version), sql_text(m->name), sql_i64(up->now)), NULL,
			  err);

	if (rc < 0 || m->oldest == 0)
		return rc;
	return sql_exec(tx, "INSERT INTO schema_contract (set_name, version, oldest) VALUES ($1, $2, $3)",
			SQL_ARGS(sql_text(up->set), sql_i64(m->version), sql_i64(m->oldest)), NULL, err);
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
		rc = sql_get_i64(tx, "SELECT MAX(version) FROM schema_migrations WHERE set_name = $1",
				 SQL_ARGS(sql_text(up->set)), &version, err);
	if (rc < 0)
		return rc;
	const struct migration *next = find(up, version + 1);
	if (next == NULL)
		return check_newer(tx, up, version, err);
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
	struct timespec pause = {.tv_nsec = (long)((200 + crypto_random_below(300)) * NS_PER_MS)};

	if (rc != -ERR_UNAVAILABLE || clock_monotonic_ns() > deadline_ns)
		return false;
	(void)nanosleep(&pause, NULL);
	return true;
}

int sql_migrate_table(struct sql *sql, const char *set, const struct migration *table, size_t count, struct err *err)
{
	struct upgrade up = {.set = set, .table = table, .count = count, .now = clock_unix_ns()};
	int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_S * NS_PER_S;
	int rc = 1;

	assert(newest(&up) > 0);
	while (rc > 0 || pause_for_lock(rc, deadline_ns))
		rc = sql_write(sql, step, &up, err);
	return rc < 0 ? err_wrap(err, "database %s", sql_shown(sql)) : 0;
}

int sql_migrate(struct sql *sql, const char *set, struct err *err)
{
	return sql_migrate_table(sql, set, migrations, migration_count, err);
}
