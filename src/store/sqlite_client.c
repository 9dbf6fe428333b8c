#include "store/sqlite_client.h"

#include <assert.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

enum { CACHE_SLOTS = 256 }; /* prepared statements per connection; a power of two */

struct sqlite_client {
	struct sqlite_file *file;
	sqlite3 *db;
	struct cached {
		char *text; /* as the caller wrote it */
		sqlite3_stmt *stmt;
		bool busy;
	} cache[CACHE_SLOTS];
	bool sync_failed;
	int wal_pages;
};

struct tx {
	struct sql_tx base;
	struct sqlite_client *client;
};

struct rows {
	struct sql_rows base;
	sqlite3_stmt *stmt;
	struct cached *slot; /* NULL: the statement is its own */
};

/* --- errors --- */

static const struct {
	int sqlite;
	enum err_code code;
} codes[] = {
	{SQLITE_FULL, ERR_DISK_FULL},	   {SQLITE_BUSY, ERR_UNAVAILABLE}, {SQLITE_LOCKED, ERR_UNAVAILABLE},
	{SQLITE_CONSTRAINT, ERR_CONFLICT}, {SQLITE_IOERR, ERR_IO},	   {SQLITE_CANTOPEN, ERR_IO},
	{SQLITE_READONLY, ERR_IO},	   {SQLITE_PERM, ERR_IO},	   {SQLITE_CORRUPT, ERR_IO},
	{SQLITE_NOTADB, ERR_IO},	   {SQLITE_PROTOCOL, ERR_IO},	   {SQLITE_TOOBIG, ERR_TOO_LARGE},
};

static enum err_code translate(sqlite3 *db, int code)
{
	int sys = db != NULL ? sqlite3_system_errno(db) : 0;

	/* The WAL and its index fail to grow with an I/O error of their own. */
	if ((code & 0xff) == SQLITE_IOERR && (sys == ENOSPC || sys == EDQUOT))
		return ERR_DISK_FULL;
	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		if (codes[i].sqlite == (code & 0xff))
			return codes[i].code;
	}
	return ERR_INTERNAL;
}

/* What the connection says of its last call. SQLite's messages hold names of tables and columns, never values. */
static int fail(struct sqlite_client *c, const char *doing, struct err *err)
{
	int code = sqlite3_extended_errcode(c->db);

	if (code == SQLITE_NOMEM)
		out_of_memory();
	if (code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC)
		c->sync_failed = true;
	return err_set(err, translate(c->db, code), "%s: %s (SQLite %d)", doing, sqlite3_errmsg(c->db), code);
}

/* --- life --- */

void sqlite_client_free(struct sqlite_client *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < CACHE_SLOTS; i++) {
		(void)sqlite3_finalize(c->cache[i].stmt);
		free(c->cache[i].text);
	}
	(void)sqlite3_close(c->db);
	free(c);
}

int sqlite_client_script(struct sqlite_client *c, const char *text, struct err *err)
{
	if (sqlite3_exec(c->db, text, NULL, NULL, NULL) != SQLITE_OK)
		return fail(c, "run SQL", err);
	return 0;
}

int sqlite_client_open(struct sqlite_file *file, const char *pragmas, struct sqlite_client **ret, struct err *err)
{
	/* Each connection is used by one thread at a time. */
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
	autoptr(sqlite_client) c = xcalloc(1, sizeof(*c));

	c->file = file;
	if (sqlite3_open_v2(file->path, &c->db, flags, NULL) != SQLITE_OK)
		return err_set(err, ERR_IO, "open: %s", c->db != NULL ? sqlite3_errmsg(c->db) : "no memory");
	(void)sqlite3_busy_timeout(c->db, (int)(file->timeout_ns / NS_PER_MS));
	int rc = sqlite_client_script(c, pragmas, err);
	if (rc == 0)
		*ret = TAKE(c);
	return rc;
}

/* --- statements --- */

/* How long the text is without FOR UPDATE [OF alias] [SKIP LOCKED] at its end: where one writes, nothing is locked. */
static size_t without_lock(const char *text)
{
	struct str s = str_c(text);
	struct str rest = s;

	if (str_ends_with(rest, STR(" SKIP LOCKED")))
		rest.len -= strlen(" SKIP LOCKED");
	struct str before_alias = rest;
	while (before_alias.len > 0 && before_alias.data[before_alias.len - 1] != ' ')
		before_alias.len--;
	if (str_ends_with(before_alias, STR(" FOR UPDATE OF ")))
		return before_alias.len - strlen(" FOR UPDATE OF ");
	return str_ends_with(rest, STR(" FOR UPDATE")) ? rest.len - strlen(" FOR UPDATE") : s.len;
}

static int prepare(struct sqlite_client *c, const char *text, unsigned flags, sqlite3_stmt **ret, struct err *err)
{
	const char *tail = NULL;
	size_t len = without_lock(text);

	if (sqlite3_prepare_v3(c->db, text, (int)len, flags, ret, &tail) != SQLITE_OK)
		return fail(c, "prepare SQL", err);
	assert(*ret != NULL && tail == text + len); /* exactly one statement */
	return 0;
}

/*
 * The statement of that text, prepared once per connection. A slot belongs to the text that used it last; a text whose
 * statement is in use right now (a query inside the loop over its own rows) gets one of its own: *ret_slot is NULL.
 */
static int statement(struct sqlite_client *c, const char *text, sqlite3_stmt **ret, struct cached **ret_slot,
		     struct err *err)
{
	struct cached *slot = &c->cache[str_hash(str_c(text)) % CACHE_SLOTS];

	*ret_slot = NULL;
	if (slot->busy)
		return prepare(c, text, 0, ret, err);
	if (slot->stmt == NULL || strcmp(slot->text, text) != 0) {
		sqlite3_stmt *fresh = NULL;
		int rc = prepare(c, text, SQLITE_PREPARE_PERSISTENT, &fresh, err);
		if (rc < 0)
			return rc;
		(void)sqlite3_finalize(slot->stmt);
		slot->stmt = fresh;
		free(slot->text);
		slot->text = xstrdup(text);
	}
	slot->busy = true;
	*ret = slot->stmt;
	*ret_slot = slot;
	return 0;
}

static void statement_done(sqlite3_stmt *stmt, struct cached *slot)
{
	if (slot == NULL) {
		(void)sqlite3_finalize(stmt);
		return;
	}
	(void)sqlite3_reset(stmt); /* its result is the last step's, which was looked at */
	(void)sqlite3_clear_bindings(stmt);
	slot->busy = false;
}

static int bind_one(sqlite3_stmt *stmt, int at, const struct sql_arg *arg)
{
	switch (arg->type) {
	case SQL_NULL:
		return sqlite3_bind_null(stmt, at);
	case SQL_I64:
		return sqlite3_bind_int64(stmt, at, arg->i64);
	case SQL_REAL:
		return sqlite3_bind_double(stmt, at, arg->real);
	case SQL_TEXT:
		/* The caller's bytes outlive the statement's run. */
		return sqlite3_bind_text64(stmt, at, arg->str.data != NULL ? arg->str.data : "", arg->str.len,
					   SQLITE_STATIC, SQLITE_UTF8);
	case SQL_BLOB:
		return sqlite3_bind_blob64(stmt, at, arg->str.data != NULL ? arg->str.data : "", arg->str.len,
					   SQLITE_STATIC);
	}
	return SQLITE_MISUSE;
}

/* "$12" is 12. */
static unsigned number_of(const char *name)
{
	unsigned number = 0;

	assert(name != NULL && name[0] == '$');
	for (const char *c = name + 1; *c != '\0'; c++) {
		assert(*c >= '0' && *c <= '9' && number <= SQL_ARGS_MAX);
		number = number * 10 + (unsigned)(*c - '0');
	}
	return number;
}

/* SQLite numbers parameters by their first appearance, so each is found by its name. All must be used, as PostgreSQL
 * demands. */
static int bind_all(struct sqlite_client *c, sqlite3_stmt *stmt, const struct sql_args *args, struct err *err)
{
	size_t count = args != NULL ? args->count : 0;
	int wanted = sqlite3_bind_parameter_count(stmt);

	assert(count <= SQL_ARGS_MAX && (size_t)wanted == count);
	for (int at = 1; at <= wanted; at++) {
		unsigned number = number_of(sqlite3_bind_parameter_name(stmt, at));
		assert(number >= 1 && number <= count);
		if (bind_one(stmt, at, &args->items[number - 1]) != SQLITE_OK)
			return fail(c, "bind SQL parameter", err);
	}
	return 0;
}

static int bound_statement(struct sqlite_client *c, const char *text, const struct sql_args *args, sqlite3_stmt **ret,
			   struct cached **ret_slot, struct err *err)
{
	int rc = statement(c, text, ret, ret_slot, err);

	if (rc < 0)
		return rc;
	rc = bind_all(c, *ret, args, err);
	if (rc < 0)
		statement_done(*ret, *ret_slot);
	return rc;
}

int sqlite_client_run(struct sqlite_client *c, const char *text, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	struct cached *slot = NULL;
	int rc = statement(c, text, &stmt, &slot, err);

	if (rc < 0)
		return rc;
	if (sqlite3_step(stmt) != SQLITE_DONE)
		rc = fail(c, text, err);
	statement_done(stmt, slot);
	return rc;
}

/* --- inside a transaction --- */

static struct sqlite_client *client_of(struct sql_tx *tx)
{
	return container_of(tx, struct tx, base)->client;
}

int sqlite_tx_query(struct sql_tx *tx, const char *text, const struct sql_args *args, struct sql_rows **ret,
		    struct err *err)
{
	struct sqlite_client *c = client_of(tx);
	sqlite3_stmt *stmt = NULL;
	struct cached *slot = NULL;
	int rc = bound_statement(c, text, args, &stmt, &slot, err);

	if (rc < 0)
		return rc;
	struct rows *rows = xcalloc(1, sizeof(*rows));
	*rows = (struct rows){.base.tx = tx, .stmt = stmt, .slot = slot};
	*ret = &rows->base;
	return 0;
}

void sqlite_rows_free(struct sql_rows *base)
{
	struct rows *rows = container_of(base, struct rows, base);

	statement_done(rows->stmt, rows->slot);
	free(rows);
}

int sqlite_rows_next(struct sql_rows *base, struct err *err)
{
	struct rows *rows = container_of(base, struct rows, base);

	switch (sqlite3_step(rows->stmt)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return fail(client_of(base->tx), "run SQL", err);
	}
}

int sqlite_tx_exec(struct sql_tx *tx, const char *text, const struct sql_args *args, int64_t *ret_changed,
		   struct err *err)
{
	struct sqlite_client *c = client_of(tx);
	sqlite3_stmt *stmt = NULL;
	struct cached *slot = NULL;
	int rc = bound_statement(c, text, args, &stmt, &slot, err);
	int step = SQLITE_ROW;

	if (rc < 0)
		return rc;
	while (step == SQLITE_ROW)
		step = sqlite3_step(stmt);
	if (step != SQLITE_DONE)
		rc = fail(c, "run SQL", err);
	if (ret_changed != NULL)
		*ret_changed = sqlite3_changes64(c->db);
	statement_done(stmt, slot);
	return rc;
}

int sqlite_tx_now(struct sql_tx *tx, int64_t *ret, struct err *err)
{
	(void)err;
	*ret = container_of(tx, struct tx, base)->client->file->clock_base + clock_boottime_ns();
	return 0;
}

int sqlite_tx_script(struct sql_tx *tx, const char *text, struct err *err)
{
	return sqlite_client_script(client_of(tx), text, err);
}

static sqlite3_stmt *stmt_at(struct sql_rows *rows, unsigned column)
{
	sqlite3_stmt *stmt = container_of(rows, struct rows, base)->stmt;

	assert(column < (unsigned)sqlite3_data_count(stmt));
	return stmt;
}

enum sql_type sqlite_col_type(struct sql_rows *rows, unsigned column)
{
	switch (sqlite3_column_type(stmt_at(rows, column), (int)column)) {
	case SQLITE_INTEGER:
		return SQL_I64;
	case SQLITE_FLOAT:
		return SQL_REAL;
	case SQLITE_TEXT:
		return SQL_TEXT;
	case SQLITE_BLOB:
		return SQL_BLOB;
	default:
		return SQL_NULL;
	}
}

int64_t sqlite_col_i64(struct sql_rows *rows, unsigned column)
{
	return sqlite3_column_int64(stmt_at(rows, column), (int)column);
}

double sqlite_col_real(struct sql_rows *rows, unsigned column)
{
	return sqlite3_column_double(stmt_at(rows, column), (int)column);
}

struct str sqlite_col_text(struct sql_rows *rows, unsigned column)
{
	sqlite3_stmt *stmt = stmt_at(rows, column);
	const void *text = sqlite3_column_text(stmt, (int)column);

	return (struct str){text, (size_t)sqlite3_column_bytes(stmt, (int)column)};
}

struct str sqlite_col_blob(struct sql_rows *rows, unsigned column)
{
	sqlite3_stmt *stmt = stmt_at(rows, column);
	const void *bytes = sqlite3_column_blob(stmt, (int)column);

	return (struct str){bytes, (size_t)sqlite3_column_bytes(stmt, (int)column)};
}

/* --- transactions --- */

int sqlite_client_call(struct sqlite_client *c, bool writable, sql_fn *fn, void *ctx, struct err *err)
{
	struct tx tx = {.base = {.ops = &sql_sqlite_ops, .writable = writable}, .client = c};

	return sql_call(&tx.base, fn, ctx, err);
}

bool sqlite_client_in_transaction(const struct sqlite_client *c)
{
	return sqlite3_get_autocommit(c->db) == 0;
}

static int refuse_broken(struct err *err)
{
	return err_set(err, ERR_IO, "the database's disk failed to sync, so nothing more is written to it");
}

/* After a failed sync the kernel calls the lost pages clean: the next sync would succeed, and a checkpoint would then
 * drop the only good copy. So nothing is tried again. */
static void mind_sync(const struct sqlite_client *c)
{
	struct sqlite_file *file = c->file;
	struct err err = {0};

	if (!c->sync_failed || atomic_exchange(&file->broken, true) || file->failed == NULL)
		return;
	(void)refuse_broken(&err);
	(void)err_wrap(&err, "database %s", file->shown);
	file->failed(&err);
}

static void roll_back(struct sqlite_client *c)
{
	struct err ignored;

	/* Only where SQLite has not already done it. */
	if (sqlite_client_in_transaction(c))
		(void)!sqlite_client_run(c, "ROLLBACK", &ignored);
}

void sqlite_client_undo(struct sqlite_client *c)
{
	mind_sync(c);
	roll_back(c);
}

int sqlite_client_write(struct sqlite_client *c, sql_fn *fn, void *ctx, struct err *err)
{
	int rc = atomic_load(&c->file->broken) ? refuse_broken(err) : sqlite_client_run(c, "BEGIN IMMEDIATE", err);

	if (rc < 0)
		return rc;
	rc = sqlite_client_call(c, true, fn, ctx, err);
	if (rc >= 0) {
		int committed = sqlite_client_run(c, "COMMIT", err);
		if (committed < 0)
			rc = committed;
	}
	sqlite_client_undo(c);
	return rc;
}

int sqlite_client_read(struct sqlite_client *c, sql_fn *fn, void *ctx, struct err *err)
{
	int rc = sqlite_client_run(c, "BEGIN", err);

	if (rc == 0)
		rc = sqlite_client_call(c, false, fn, ctx, err);
	roll_back(c); /* nothing was written */
	return rc;
}

/* --- checkpoints and copies --- */

static int on_commit(void *ctx, sqlite3 *db, const char *name, int pages)
{
	struct sqlite_client *c = ctx;

	(void)db;
	(void)name;
	c->wal_pages = pages;
	return SQLITE_OK;
}

void sqlite_client_watch_wal(struct sqlite_client *c)
{
	(void)sqlite3_wal_hook(c->db, on_commit, c);
}

int sqlite_client_take_wal_pages(struct sqlite_client *c)
{
	int pages = c->wal_pages;

	c->wal_pages = 0;
	return pages;
}

void sqlite_client_checkpoint(struct sqlite_client *c)
{
	if (sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) != SQLITE_OK)
		(void)fail(c, "checkpoint", NULL);
	mind_sync(c);
}

/* All pages under one read lock: in WAL mode that holds up no writer. */
int sqlite_client_copy(struct sqlite_client *from, struct sqlite_client *to, int64_t deadline_ns, struct err *err)
{
	sqlite3_backup *backup = sqlite3_backup_init(to->db, "main", from->db, "main");
	int step = SQLITE_BUSY;

	if (backup == NULL)
		return err_set(err, ERR_IO, "%s", sqlite3_errmsg(to->db));
	while ((step == SQLITE_BUSY || step == SQLITE_LOCKED) && clock_monotonic_ns() < deadline_ns) {
		step = sqlite3_backup_step(backup, -1) & 0xff;
		if (step != SQLITE_DONE)
			(void)sqlite3_sleep(10);
	}
	(void)sqlite3_backup_finish(backup);
	if (step == SQLITE_DONE)
		return 0;
	return err_set(err,
		       step == SQLITE_FULL   ? ERR_DISK_FULL
		       : step == SQLITE_BUSY ? ERR_UNAVAILABLE
					     : ERR_IO,
		       "%s", sqlite3_errstr(step));
}
