/*
 * SQLite behind the SQL face: one writer, a pool of readers, and a clock that does not jump.
 */
#include <fcntl.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/sql_backend.h"
#include "store/sqlite_client.h"
#include "store/sqlite_readers.h"
#include "store/sqlite_writer.h"

enum { READERS_DEFAULT = 4 };

/* FULL: a commit is on the disk before it is answered. Checkpoints are another thread's. */
#define WRITER_PRAGMAS                                                                                         \
	"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF;" \
	"PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=16777216; PRAGMA temp_store=MEMORY;"           \
	"PRAGMA secure_delete=ON"

struct sqlite {
	struct sql base;
	char *path;
	struct sqlite_file file;
	struct sqlite_writer *writer;
	struct sqlite_readers *readers;
	unsigned readers_max;
};

/* --- the clock --- */

/* The wall clock may leap; the time since the boot does not. Where the two met when this boot was first seen is kept,
 * so that every process of this boot has the same clock. */
struct clock_base {
	const char *boot_id;
	int64_t base;
};

static int load_clock(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct clock_base *c = ctx;

	return sql_get_i64(tx, "SELECT base FROM store_clock WHERE boot_id = $1", SQL_ARGS(sql_text(c->boot_id)),
			   &c->base, err);
}

/* Whoever comes first says it for this boot; no other boot comes again. */
static int store_clock(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct clock_base *c = ctx;
	int rc = sql_exec(tx, "DELETE FROM store_clock WHERE boot_id <> $1", SQL_ARGS(sql_text(c->boot_id)), NULL, err);

	return rc < 0 ? rc
		      : sql_exec(tx, "INSERT INTO store_clock (boot_id, base) VALUES ($1, $2) ON CONFLICT DO NOTHING",
				 SQL_ARGS(sql_text(c->boot_id), sql_i64(c->base)), NULL, err);
}

static int open_clock(struct sqlite_client *client, int64_t *ret, struct err *err)
{
	autovar(buf) boot_id = {0};
	int rc = file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot_id, err);

	if (rc == 0)
		rc = sqlite_client_script(
			client, "CREATE TABLE IF NOT EXISTS store_clock (boot_id TEXT PRIMARY KEY, base BIGINT)", err);
	if (rc < 0)
		return rc;
	struct clock_base c = {.boot_id = boot_id.data, .base = clock_unix_ns() - clock_boottime_ns()};
	rc = sqlite_client_read(client, load_clock, &c, err);
	if (rc == 0) {
		rc = sqlite_client_write(client, store_clock, &c, err);
		if (rc == 0)
			rc = sqlite_client_read(client, load_clock, &c, err);
	}
	if (rc < 0)
		return rc;
	*ret = c.base;
	return 0;
}

/* --- life --- */

/* Made by us, so that nobody else may read it: SQLite gives its other files the same mode. */
static int make_file(const char *path, struct err *err)
{
	autoclose fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? err_sys(err, "open") : 0;
}

static void sqlite_free(struct sql *sql)
{
	struct sqlite *s = container_of(sql, struct sqlite, base);

	sqlite_readers_free(s->readers);
	sqlite_writer_free(s->writer);
	free(s->base.shown);
	free(s->path);
	free(s);
}

static int open_writer(struct sqlite *s, struct err *err)
{
	autoptr(sqlite_client) client = NULL;
	int rc = make_file(s->path, err);

	if (rc == 0)
		rc = sqlite_client_open(&s->file, WRITER_PRAGMAS, &client, err);
	if (rc == 0)
		rc = open_clock(client, &s->file.clock_base, err);
	if (rc == 0)
		rc = sqlite_writer_new(&s->file, TAKE(client), &s->writer, err);
	return rc;
}

static int sqlite_open(struct dsn *dsn, const struct sql_opts *opts, struct sql **ret, struct err *err)
{
	struct sqlite *s = xcalloc(1, sizeof(*s));

	s->base = (struct sql){.ops = &sql_sqlite_ops, .shown = xstrdup(dsn->shown)};
	s->path = xstrdup(dsn->path);
	s->file.path = s->path;
	s->file.shown = s->base.shown;
	s->file.timeout_ns = opts->timeout_ns;
	s->file.failed = opts->failed;
	s->readers_max = opts->connections == 0 ? READERS_DEFAULT : opts->connections;
	if (s->readers_max > SQLITE_READERS_MAX)
		s->readers_max = SQLITE_READERS_MAX;
	s->readers = sqlite_readers_new(&s->file, s->readers_max);
	int rc = open_writer(s, err);
	if (rc < 0) {
		sqlite_free(&s->base);
		return rc;
	}
	*ret = &s->base;
	return 0;
}

static int sqlite_write(struct sql *sql, sql_fn *fn, void *ctx, struct err *err)
{
	return sqlite_writer_write(container_of(sql, struct sqlite, base)->writer, fn, ctx, err);
}

static int sqlite_write_start(struct sql *sql, struct sql_inbox *inbox, sql_fn *fn, sql_done_fn *done, void *ctx,
			      struct err *err)
{
	return sqlite_writer_start(container_of(sql, struct sqlite, base)->writer, inbox, fn, done, ctx, err);
}

static int sqlite_read(struct sql *sql, sql_fn *fn, void *ctx, struct err *err)
{
	return sqlite_readers_read(container_of(sql, struct sqlite, base)->readers, fn, ctx, err);
}

static struct sql_load sqlite_load(struct sql *sql)
{
	struct sqlite *s = container_of(sql, struct sqlite, base);

	return (struct sql_load){
		.waiting = sqlite_writer_waiting(s->writer),
		.waiting_max = SQLITE_WRITES_MAX,
		.connections = sqlite_readers_busy(s->readers),
		.connections_max = s->readers_max,
	};
}

/* Every write is this process's own: it wakes its own waiters. */
static int sqlite_listen(struct sql *sql, const char *channel, sql_note_fn *fn, void *ctx, struct err *err)
{
	(void)sql;
	(void)channel;
	(void)fn;
	(void)ctx;
	(void)err;
	return 0;
}

static void notify(struct sql_tx *tx, const char *channel, const char *payload)
{
	(void)tx;
	(void)channel;
	(void)payload;
}

/* BEGIN IMMEDIATE has seen to it. */
static int lock_schema(struct sql_tx *tx, struct err *err)
{
	(void)tx;
	(void)err;
	return 0;
}

const struct sql_ops sql_sqlite_ops = {
	.open = sqlite_open,
	.free = sqlite_free,
	.write = sqlite_write,
	.write_start = sqlite_write_start,
	.read = sqlite_read,
	.listen = sqlite_listen,
	.load = sqlite_load,
	.now = sqlite_tx_now,
	.notify = notify,
	.lock_schema = lock_schema,
	.exec = sqlite_tx_exec,
	.script = sqlite_tx_script,
	.query = sqlite_tx_query,
	.rows_free = sqlite_rows_free,
	.next = sqlite_rows_next,
	.col_type = sqlite_col_type,
	.col_i64 = sqlite_col_i64,
	.col_real = sqlite_col_real,
	.col_text = sqlite_col_text,
	.col_blob = sqlite_col_blob,
};
