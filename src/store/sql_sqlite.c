/*
 * SQLite behind the SQL face.
 *
 * One writer thread owns the only connection that writes. It takes all requests that wait, runs each in a SAVEPOINT of
 * one transaction, and commits them together: one fsync for the whole group. Readers take a connection of a pool. A
 * third thread checkpoints on a connection of its own, so that no commit pays for it; where it falls behind, the writer
 * waits for it, which bounds the WAL.
 *
 * Some errors (a full disk, I/O, OR ROLLBACK) make SQLite undo the whole transaction on the spot: then autocommit is on
 * again, and what the group's other functions did is lost too. The writer looks after every function, and reruns a lost
 * group one by one, so that only those fail that have a reason to.
 */
#include "store/sql_backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/queue.h"
#include "store/backup.h"

enum {
	CACHE_SLOTS = 256, /* prepared statements per connection; a power of two */
	GROUP_MAX = 256,   /* requests in one commit */
	QUEUE_MAX = 8192,  /* requests that wait */
	READERS_MAX = 32,
	READERS_DEFAULT = 4,
	WAL_SOFT_PAGES = 1000,	/* begin a checkpoint; 4 MB, SQLite's own default */
	WAL_HARD_PAGES = 16000, /* the writer waits for one: about 64 MB */
};

struct connection {
	sqlite3 *db;
	struct cached {
		char *text; /* as the caller wrote it */
		sqlite3_stmt *stmt;
		bool busy;
	} cache[CACHE_SLOTS];
	bool sync_failed;
};

struct checkpointer {
	struct connection conn;
	pthread_t thread;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t wake;  /* wanted or stop */
	pthread_cond_t done;  /* passes went up */
	bool wanted;
	bool stop;
	uint64_t passes;
};

struct sqlite {
	struct sql base;
	char *path;
	int64_t timeout_ns;
	int64_t clock_base; /* Unix time when CLOCK_BOOTTIME was 0 */
	void (*failed)(const struct err *err);
	atomic_bool broken;  /* a sync failed */
	struct queue *queue; /* of struct request */
	struct connection writer;
	pthread_t writer_thread;
	int wal_pages; /* of the writer's thread */
	struct checkpointer checkpointer;
	pthread_mutex_t pool_lock; /* idle and opened */
	pthread_cond_t pool_freed;
	struct connection *idle[READERS_MAX];
	unsigned idle_count;
	unsigned opened;
	unsigned readers;
};

struct tx {
	struct sql_tx base;
	const struct sqlite *store;
	struct connection *conn;
};

struct rows {
	struct sql_rows base;
	sqlite3_stmt *stmt;
	struct cached *slot; /* NULL: the statement is its own */
};

/* One write: on the caller's stack where it waits, on the heap where an inbox takes the answer. */
struct request {
	sql_fn *fn;
	void *ctx;
	int rc;
	struct err err;
	struct sql_inbox *inbox;
	sql_done_fn *done;
	bool finished;
	pthread_mutex_t lock; /* finished */
	pthread_cond_t answered;
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
static int fail(struct connection *conn, const char *doing, struct err *err)
{
	int code = sqlite3_extended_errcode(conn->db);

	if (code == SQLITE_NOMEM)
		out_of_memory();
	if (code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC)
		conn->sync_failed = true;
	return err_set(err, translate(conn->db, code), "%s: %s (SQLite %d)", doing, sqlite3_errmsg(conn->db), code);
}

/* --- connections and their statements --- */

static void connection_close(struct connection *conn)
{
	for (size_t i = 0; i < CACHE_SLOTS; i++) {
		(void)sqlite3_finalize(conn->cache[i].stmt);
		free(conn->cache[i].text);
	}
	(void)sqlite3_close(conn->db);
	*conn = (struct connection){0};
}

static int run_script(struct connection *conn, const char *text, struct err *err)
{
	if (sqlite3_exec(conn->db, text, NULL, NULL, NULL) != SQLITE_OK)
		return fail(conn, "run SQL", err);
	return 0;
}

static int connection_open(struct connection *conn, const char *path, int64_t timeout_ns, const char *pragmas,
			   struct err *err)
{
	/* Each connection is used by one thread at a time. */
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;

	if (sqlite3_open_v2(path, &conn->db, flags, NULL) != SQLITE_OK) {
		int rc = err_set(err, ERR_IO, "open: %s", conn->db != NULL ? sqlite3_errmsg(conn->db) : "no memory");
		connection_close(conn);
		return rc;
	}
	(void)sqlite3_busy_timeout(conn->db, (int)(timeout_ns / NS_PER_MS));
	int rc = run_script(conn, pragmas, err);
	if (rc < 0)
		connection_close(conn);
	return rc;
}

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

static int prepare(struct connection *conn, const char *text, unsigned flags, sqlite3_stmt **ret, struct err *err)
{
	const char *tail = NULL;
	size_t len = without_lock(text);

	if (sqlite3_prepare_v3(conn->db, text, (int)len, flags, ret, &tail) != SQLITE_OK)
		return fail(conn, "prepare SQL", err);
	assert(*ret != NULL && tail == text + len); /* exactly one statement */
	return 0;
}

/* FNV-1a. */
static size_t slot_of(const char *text)
{
	uint32_t hash = 2166136261U;

	for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++)
		hash = (hash ^ *c) * 16777619U;
	return hash & (CACHE_SLOTS - 1);
}

/*
 * The statement of that text, prepared once per connection. A slot belongs to the text that used it last; a text whose
 * statement is in use right now (a query inside the loop over its own rows) gets one of its own: *ret_slot is NULL.
 */
static int statement(struct connection *conn, const char *text, sqlite3_stmt **ret, struct cached **ret_slot,
		     struct err *err)
{
	struct cached *slot = &conn->cache[slot_of(text)];

	*ret_slot = NULL;
	if (slot->busy)
		return prepare(conn, text, 0, ret, err);
	if (slot->stmt == NULL || strcmp(slot->text, text) != 0) {
		sqlite3_stmt *fresh = NULL;
		int rc = prepare(conn, text, SQLITE_PREPARE_PERSISTENT, &fresh, err);
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
static int bind_all(struct connection *conn, sqlite3_stmt *stmt, const struct sql_args *args, struct err *err)
{
	size_t count = args != NULL ? args->count : 0;
	int wanted = sqlite3_bind_parameter_count(stmt);

	assert(count <= SQL_ARGS_MAX && (size_t)wanted == count);
	for (int at = 1; at <= wanted; at++) {
		unsigned number = number_of(sqlite3_bind_parameter_name(stmt, at));
		assert(number >= 1 && number <= count);
		if (bind_one(stmt, at, &args->items[number - 1]) != SQLITE_OK)
			return fail(conn, "bind SQL parameter", err);
	}
	return 0;
}

/* A statement of our own without parameters or rows: BEGIN and its like. */
static int run(struct connection *conn, const char *text, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	struct cached *slot = NULL;
	int rc = statement(conn, text, &stmt, &slot, err);

	if (rc < 0)
		return rc;
	if (sqlite3_step(stmt) != SQLITE_DONE)
		rc = fail(conn, text, err);
	statement_done(stmt, slot);
	return rc;
}

/* --- inside a transaction --- */

static struct connection *conn_of(struct sql_tx *tx)
{
	return container_of(tx, struct tx, base)->conn;
}

static int tx_query(struct sql_tx *tx, const char *text, const struct sql_args *args, struct sql_rows **ret,
		    struct err *err)
{
	struct connection *conn = conn_of(tx);
	sqlite3_stmt *stmt = NULL;
	struct cached *slot = NULL;
	int rc = statement(conn, text, &stmt, &slot, err);

	if (rc < 0)
		return rc;
	rc = bind_all(conn, stmt, args, err);
	if (rc < 0) {
		statement_done(stmt, slot);
		return rc;
	}
	struct rows *rows = xcalloc(1, sizeof(*rows));
	*rows = (struct rows){.base.tx = tx, .stmt = stmt, .slot = slot};
	*ret = &rows->base;
	return 0;
}

static void tx_rows_free(struct sql_rows *base)
{
	struct rows *rows = container_of(base, struct rows, base);

	statement_done(rows->stmt, rows->slot);
	free(rows);
}

static int tx_next(struct sql_rows *base, struct err *err)
{
	struct rows *rows = container_of(base, struct rows, base);

	switch (sqlite3_step(rows->stmt)) {
	case SQLITE_ROW:
		return 1;
	case SQLITE_DONE:
		return 0;
	default:
		return fail(conn_of(base->tx), "run SQL", err);
	}
}

static int tx_exec(struct sql_tx *tx, const char *text, const struct sql_args *args, int64_t *ret_changed,
		   struct err *err)
{
	struct connection *conn = conn_of(tx);
	sqlite3_stmt *stmt = NULL;
	struct cached *slot = NULL;
	int rc = statement(conn, text, &stmt, &slot, err);

	if (rc < 0)
		return rc;
	rc = bind_all(conn, stmt, args, err);
	if (rc == 0) {
		int step = SQLITE_ROW;
		while (step == SQLITE_ROW)
			step = sqlite3_step(stmt);
		if (step != SQLITE_DONE)
			rc = fail(conn, "run SQL", err);
		if (ret_changed != NULL)
			*ret_changed = sqlite3_changes64(conn->db);
	}
	statement_done(stmt, slot);
	return rc;
}

static int tx_now(struct sql_tx *tx, int64_t *ret, struct err *err)
{
	(void)err;
	*ret = container_of(tx, struct tx, base)->store->clock_base + clock_boottime_ns();
	return 0;
}

/* Every write is this process's own: it wakes its own waiters. */
static void tx_notify(struct sql_tx *tx, const char *channel, const char *payload)
{
	(void)tx;
	(void)channel;
	(void)payload;
}

/* BEGIN IMMEDIATE has seen to it. */
static int tx_lock_schema(struct sql_tx *tx, struct err *err)
{
	(void)tx;
	(void)err;
	return 0;
}

static int tx_script(struct sql_tx *tx, const char *text, struct err *err)
{
	return run_script(conn_of(tx), text, err);
}

static sqlite3_stmt *stmt_at(struct sql_rows *rows, unsigned column)
{
	sqlite3_stmt *stmt = container_of(rows, struct rows, base)->stmt;

	assert(column < (unsigned)sqlite3_data_count(stmt));
	return stmt;
}

static enum sql_type col_type(struct sql_rows *rows, unsigned column)
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

static int64_t col_i64(struct sql_rows *rows, unsigned column)
{
	return sqlite3_column_int64(stmt_at(rows, column), (int)column);
}

static double col_real(struct sql_rows *rows, unsigned column)
{
	return sqlite3_column_double(stmt_at(rows, column), (int)column);
}

static struct str col_text(struct sql_rows *rows, unsigned column)
{
	sqlite3_stmt *stmt = stmt_at(rows, column);
	const void *text = sqlite3_column_text(stmt, (int)column);

	return (struct str){text, (size_t)sqlite3_column_bytes(stmt, (int)column)};
}

static struct str col_blob(struct sql_rows *rows, unsigned column)
{
	sqlite3_stmt *stmt = stmt_at(rows, column);
	const void *bytes = sqlite3_column_blob(stmt, (int)column);

	return (struct str){bytes, (size_t)sqlite3_column_bytes(stmt, (int)column)};
}

static int call(const struct sqlite *s, struct connection *conn, bool writable, sql_fn *fn, void *ctx, struct err *err)
{
	struct tx tx = {.base = {.ops = &sql_sqlite_ops, .writable = writable}, .store = s, .conn = conn};

	return sql_call(&tx.base, fn, ctx, err);
}

static int refuse_broken(struct err *err)
{
	return err_set(err, ERR_IO, "the database's disk failed to sync, so nothing more is written to it");
}

/* After a failed sync the kernel calls the lost pages clean: the next sync would succeed, and a checkpoint would then
 * drop the only good copy. So nothing is tried again. */
static void mind_sync(struct sqlite *s, const struct connection *conn)
{
	struct err err = {0};

	if (!conn->sync_failed || atomic_exchange(&s->broken, true) || s->failed == NULL)
		return;
	(void)refuse_broken(&err);
	(void)err_wrap(&err, "database %s", s->base.shown);
	s->failed(&err);
}

/* --- checkpoints --- */

static int on_commit(void *ctx, sqlite3 *db, const char *name, int pages)
{
	struct sqlite *s = ctx;

	(void)db;
	(void)name;
	s->wal_pages = pages;
	return SQLITE_OK;
}

static void *checkpoint_main(void *arg)
{
	struct sqlite *s = arg;
	struct checkpointer *cp = &s->checkpointer;

	(void)pthread_mutex_lock(&cp->lock);
	while (!cp->stop) {
		if (!cp->wanted) {
			(void)pthread_cond_wait(&cp->wake, &cp->lock);
			continue;
		}
		cp->wanted = false;
		(void)pthread_mutex_unlock(&cp->lock);
		/* Passive: it never waits for anybody, and nobody for it. What it cannot do, the next pass does; a disk
		 * without room for it has none for the next commit either, which then says so. */
		if (sqlite3_wal_checkpoint_v2(cp->conn.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) != SQLITE_OK)
			(void)fail(&cp->conn, "checkpoint", NULL);
		mind_sync(s, &cp->conn);
		(void)pthread_mutex_lock(&cp->lock);
		cp->passes++;
		(void)pthread_cond_broadcast(&cp->done);
	}
	(void)pthread_mutex_unlock(&cp->lock);
	return NULL;
}

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

static void ask_for_pass_locked(struct checkpointer *cp)
{
	cp->wanted = true;
	(void)pthread_cond_signal(&cp->wake);
}

/*
 * After a commit. Over the soft bound a pass begins beside the writes. Over the hard one the writer lets a whole pass
 * run alone: then all of the WAL is in the database, and the next write begins the file anew, unless a reader still
 * stands on an old state; hence the deadline.
 */
static void mind_wal(struct sqlite *s)
{
	struct checkpointer *cp = &s->checkpointer;

	if (s->wal_pages < WAL_SOFT_PAGES)
		return;
	(void)pthread_mutex_lock(&cp->lock);
	ask_for_pass_locked(cp);
	if (s->wal_pages >= WAL_HARD_PAGES) {
		int64_t deadline_ns = clock_monotonic_ns() + NS_PER_S;
		/* The pass that runs now may have begun before the last commit: the one after it has not. */
		uint64_t target = cp->passes + 2;
		bool in_time = true;
		while (cp->passes < target && in_time) {
			in_time = clock_cond_wait(&cp->done, &cp->lock, deadline_ns);
			ask_for_pass_locked(cp);
		}
	}
	(void)pthread_mutex_unlock(&cp->lock);
	s->wal_pages = 0; /* until the next commit says how many there are */
}

/* --- the writer --- */

/* The request may be gone as soon as its owner has seen the answer. */
static void answer(struct request *r)
{
	if (r->inbox != NULL) {
		sql_inbox_post(r->inbox, r->done, r->ctx, r->rc, &r->err);
		free(r);
		return;
	}
	(void)pthread_mutex_lock(&r->lock);
	r->finished = true;
	(void)pthread_cond_signal(&r->answered);
	(void)pthread_mutex_unlock(&r->lock);
}

static void undo(struct connection *conn)
{
	struct err ignored;

	/* Only where SQLite has not already done it. */
	if (sqlite3_get_autocommit(conn->db) == 0)
		(void)run(conn, "ROLLBACK", &ignored);
}

/* One request in a transaction of its own. */
static void write_alone(struct sqlite *s, struct request *r)
{
	struct connection *conn = &s->writer;

	r->err = (struct err){0};
	r->rc = atomic_load(&s->broken) ? refuse_broken(&r->err) : run(conn, "BEGIN IMMEDIATE", &r->err);
	if (r->rc < 0)
		return;
	r->rc = call(s, conn, true, r->fn, r->ctx, &r->err);
	if (r->rc >= 0) {
		int rc = run(conn, "COMMIT", &r->err);
		if (rc < 0)
			r->rc = rc;
	}
	mind_sync(s, conn);
	undo(conn);
}

/* Runs one request inside the group's transaction; false when that transaction is gone. */
static bool write_in_group(struct sqlite *s, struct request *r)
{
	struct connection *conn = &s->writer;
	struct err err;

	r->err = (struct err){0};
	if (run(conn, "SAVEPOINT request", &err) < 0)
		return false;
	r->rc = call(s, conn, true, r->fn, r->ctx, &r->err);
	if (sqlite3_get_autocommit(conn->db) != 0)
		return false;
	if (r->rc < 0 && run(conn, "ROLLBACK TO request", &err) < 0)
		return false;
	return run(conn, "RELEASE request", &err) == 0;
}

/* All requests in one transaction; false when it was lost and none of them has happened. */
static bool write_group(struct sqlite *s, struct request **group, size_t count)
{
	struct connection *conn = &s->writer;
	struct err err = {0};
	int rc = run(conn, "BEGIN IMMEDIATE", &err);

	for (size_t i = 0; i < count; i++) {
		/* Somebody else holds the file: each on its own would only wait as long again. */
		if (rc < 0) {
			group[i]->err = err;
			group[i]->rc = rc;
		} else if (!write_in_group(s, group[i])) {
			return false;
		}
	}
	return rc < 0 || run(conn, "COMMIT", &err) == 0;
}

static void *writer_main(void *arg)
{
	struct sqlite *s = arg;
	void *group[GROUP_MAX];

	for (;;) {
		size_t count = queue_pop_many(s->queue, group, GROUP_MAX, INT64_MAX);
		if (count == 0)
			return NULL;
		bool done = count > 1 && !atomic_load(&s->broken) && write_group(s, (struct request **)group, count);
		if (!done) {
			mind_sync(s, &s->writer);
			undo(&s->writer);
			for (size_t i = 0; i < count; i++)
				write_alone(s, group[i]);
		}
		for (size_t i = 0; i < count; i++)
			answer(group[i]);
		mind_wal(s);
	}
}

static int overloaded(struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "the database cannot keep up: too many writes wait");
}

static int sqlite_write(struct sql *sql, sql_fn *fn, void *ctx, struct err *err)
{
	struct sqlite *s = container_of(sql, struct sqlite, base);
	struct request r = {.fn = fn, .ctx = ctx};

	(void)pthread_mutex_init(&r.lock, NULL);
	(void)pthread_cond_init(&r.answered, NULL);
	bool pushed = queue_push(s->queue, &r, clock_monotonic_ns() + s->timeout_ns);
	/* Each step of the writer has its own deadline, so this wait ends. */
	(void)pthread_mutex_lock(&r.lock);
	while (pushed && !r.finished)
		(void)pthread_cond_wait(&r.answered, &r.lock);
	(void)pthread_mutex_unlock(&r.lock);
	(void)pthread_cond_destroy(&r.answered);
	(void)pthread_mutex_destroy(&r.lock);
	if (!pushed)
		return overloaded(err);
	if (r.rc < 0 && err != NULL)
		*err = r.err;
	return r.rc;
}

static int sqlite_write_start(struct sql *sql, struct sql_inbox *inbox, sql_fn *fn, sql_done_fn *done, void *ctx,
			      struct err *err)
{
	struct sqlite *s = container_of(sql, struct sqlite, base);
	struct request *r = xcalloc(1, sizeof(*r));

	*r = (struct request){.fn = fn, .ctx = ctx, .inbox = inbox, .done = done};
	if (!queue_try_push(s->queue, r)) {
		free(r);
		return overloaded(err);
	}
	return 0;
}

/* --- readers --- */

static int reader_new(struct sqlite *s, struct connection **ret, struct err *err)
{
	struct connection *conn = xcalloc(1, sizeof(*conn));
	int rc = connection_open(conn, s->path, s->timeout_ns, "PRAGMA query_only=ON", err);

	if (rc < 0)
		free(conn);
	else
		*ret = conn;
	return rc;
}

/* An idle connection, a new one while there may be more, or the first that comes back. */
static int reader_get(struct sqlite *s, struct connection **ret, struct err *err)
{
	struct timespec until = timespec_of(clock_monotonic_ns() + s->timeout_ns);
	int waited = 0;

	*ret = NULL;
	(void)pthread_mutex_lock(&s->pool_lock);
	while (s->idle_count == 0 && s->opened == s->readers && waited == 0)
		waited = pthread_cond_timedwait(&s->pool_freed, &s->pool_lock, &until);
	bool open_new = s->idle_count == 0 && s->opened < s->readers;
	if (s->idle_count > 0)
		*ret = s->idle[--s->idle_count];
	else if (open_new)
		s->opened++;
	(void)pthread_mutex_unlock(&s->pool_lock);
	if (*ret != NULL)
		return 0;
	if (!open_new)
		return err_set(err, ERR_UNAVAILABLE, "the database cannot keep up: too many reads wait");
	int rc = reader_new(s, ret, err);
	if (rc < 0) {
		(void)pthread_mutex_lock(&s->pool_lock);
		s->opened--;
		(void)pthread_cond_signal(&s->pool_freed);
		(void)pthread_mutex_unlock(&s->pool_lock);
	}
	return rc;
}

static void reader_put(struct sqlite *s, struct connection *conn)
{
	(void)pthread_mutex_lock(&s->pool_lock);
	s->idle[s->idle_count++] = conn;
	(void)pthread_cond_signal(&s->pool_freed);
	(void)pthread_mutex_unlock(&s->pool_lock);
}

static int sqlite_read(struct sql *sql, sql_fn *fn, void *ctx, struct err *err)
{
	struct sqlite *s = container_of(sql, struct sqlite, base);
	struct connection *conn = NULL;
	struct err local = {0};
	int rc = reader_get(s, &conn, &local);

	if (rc == 0) {
		rc = run(conn, "BEGIN", &local);
		if (rc == 0)
			rc = call(s, conn, false, fn, ctx, &local);
		undo(conn); /* nothing was written */
		reader_put(s, conn);
	}
	if (rc < 0 && err != NULL)
		*err = local;
	return rc;
}

/* --- the clock --- */

/* The wall clock may leap; the time since the boot does not. Where the two met when this boot was first seen is kept,
 * so that every process of this boot has the same clock. */
static int load_clock(struct connection *conn, const char *boot_id, int64_t *ret, bool *ret_found, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	struct cached *slot = NULL;
	int rc = statement(conn, "SELECT base FROM store_clock WHERE boot_id = $1", &stmt, &slot, err);

	if (rc < 0)
		return rc;
	rc = bind_all(conn, stmt, SQL_ARGS(sql_text(boot_id)), err);
	int step = rc == 0 ? sqlite3_step(stmt) : SQLITE_DONE;
	*ret_found = step == SQLITE_ROW;
	if (*ret_found)
		*ret = sqlite3_column_int64(stmt, 0);
	else if (step != SQLITE_DONE)
		rc = fail(conn, "read the clock", err);
	statement_done(stmt, slot);
	return rc;
}

struct clock_base {
	const char *boot_id;
	int64_t base;
};

/* Whoever comes first says it for this boot; no other boot comes again. */
static int store_clock(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct clock_base *c = ctx;
	int rc = sql_exec(tx, "DELETE FROM store_clock WHERE boot_id <> $1", SQL_ARGS(sql_text(c->boot_id)), NULL, err);

	return rc < 0 ? rc
		      : sql_exec(tx, "INSERT INTO store_clock (boot_id, base) VALUES ($1, $2) ON CONFLICT DO NOTHING",
				 SQL_ARGS(sql_text(c->boot_id), sql_i64(c->base)), NULL, err);
}

static int open_clock(struct sqlite *s, struct err *err)
{
	autovar(buf) boot_id = {0};
	bool found = false;
	int rc = file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot_id, err);

	if (rc == 0)
		rc = run_script(&s->writer,
				"CREATE TABLE IF NOT EXISTS store_clock (boot_id TEXT PRIMARY KEY, base BIGINT)", err);
	if (rc == 0)
		rc = load_clock(&s->writer, boot_id.data, &s->clock_base, &found, err);
	if (rc < 0 || found)
		return rc;
	struct clock_base fresh = {.boot_id = boot_id.data, .base = clock_unix_ns() - clock_boottime_ns()};
	struct request r = {.fn = store_clock, .ctx = &fresh};
	write_alone(s, &r);
	rc = r.rc;
	if (rc < 0)
		*err = r.err;
	if (rc == 0)
		rc = load_clock(&s->writer, boot_id.data, &s->clock_base, &found, err);
	return rc;
}

/* --- life --- */

static int sqlite_listen(struct sql *sql, const char *channel, sql_note_fn *fn, void *ctx, struct err *err)
{
	(void)sql;
	(void)channel;
	(void)fn;
	(void)ctx;
	(void)err;
	return 0;
}

/* Made by us, so that nobody else may read it: SQLite gives its other files the same mode. */
static int make_file(const char *path, struct err *err)
{
	autoclose fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? err_sys(err, "open") : 0;
}

/* FULL: a commit is on the disk before it is answered. Checkpoints are the other thread's. */
#define WRITER_PRAGMAS                                                                                         \
	"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF;" \
	"PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=16777216; PRAGMA temp_store=MEMORY;"           \
	"PRAGMA secure_delete=ON"
#define CHECKPOINT_PRAGMAS "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0"

static void init_locks(struct sqlite *s)
{
	pthread_condattr_t monotonic;

	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_mutex_init(&s->pool_lock, NULL);
	(void)pthread_cond_init(&s->pool_freed, &monotonic);
	(void)pthread_mutex_init(&s->checkpointer.lock, NULL);
	(void)pthread_cond_init(&s->checkpointer.wake, &monotonic);
	(void)pthread_cond_init(&s->checkpointer.done, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
}

/* What is left when both threads are gone, or never began. */
static void release(struct sqlite *s)
{
	for (unsigned i = 0; i < s->idle_count; i++) {
		connection_close(s->idle[i]);
		free(s->idle[i]);
	}
	connection_close(&s->checkpointer.conn);
	connection_close(&s->writer); /* the last one: SQLite checkpoints and removes the WAL */
	(void)pthread_cond_destroy(&s->pool_freed);
	(void)pthread_mutex_destroy(&s->pool_lock);
	(void)pthread_cond_destroy(&s->checkpointer.wake);
	(void)pthread_cond_destroy(&s->checkpointer.done);
	(void)pthread_mutex_destroy(&s->checkpointer.lock);
	queue_free(s->queue);
	free(s->base.shown);
	free(s->path);
	free(s);
}

static void stop_checkpointer(struct checkpointer *cp)
{
	(void)pthread_mutex_lock(&cp->lock);
	cp->stop = true;
	(void)pthread_cond_signal(&cp->wake);
	(void)pthread_mutex_unlock(&cp->lock);
	(void)pthread_join(cp->thread, NULL);
}

static void sqlite_free(struct sql *sql)
{
	struct sqlite *s = container_of(sql, struct sqlite, base);

	assert(s->idle_count == s->opened);
	queue_close(s->queue);
	(void)pthread_join(s->writer_thread, NULL);
	stop_checkpointer(&s->checkpointer);
	release(s);
}

static int start_threads(struct sqlite *s, struct err *err)
{
	int failed = pthread_create(&s->checkpointer.thread, NULL, checkpoint_main, s);

	if (failed == 0) {
		failed = pthread_create(&s->writer_thread, NULL, writer_main, s);
		if (failed != 0)
			stop_checkpointer(&s->checkpointer);
	}
	errno = failed;
	return failed == 0 ? 0 : err_sys(err, "start a thread");
}

static int sqlite_open(struct dsn *dsn, const struct sql_opts *opts, struct sql **ret, struct err *err)
{
	struct sqlite *s = xcalloc(1, sizeof(*s));

	s->base = (struct sql){.ops = &sql_sqlite_ops, .shown = xstrdup(dsn->shown)};
	s->path = xstrdup(dsn->path);
	s->timeout_ns = opts->timeout_ns;
	s->readers = opts->connections == 0 ? READERS_DEFAULT : opts->connections;
	if (s->readers > READERS_MAX)
		s->readers = READERS_MAX;
	s->failed = opts->failed;
	s->queue = queue_new(QUEUE_MAX);
	init_locks(s);
	int rc = make_file(s->path, err);
	if (rc == 0)
		rc = connection_open(&s->writer, s->path, s->timeout_ns, WRITER_PRAGMAS, err);
	if (rc == 0)
		rc = open_clock(s, err);
	if (rc == 0)
		rc = connection_open(&s->checkpointer.conn, s->path, s->timeout_ns, CHECKPOINT_PRAGMAS, err);
	if (rc == 0) {
		(void)sqlite3_wal_hook(s->writer.db, on_commit, s);
		rc = start_threads(s, err);
	}
	if (rc < 0) {
		release(s);
		return rc;
	}
	*ret = &s->base;
	return 0;
}

static struct sql_load sqlite_load(struct sql *sql)
{
	struct sqlite *s = container_of(sql, struct sqlite, base);
	struct sql_load load = {
		.waiting = queue_len(s->queue), .waiting_max = QUEUE_MAX, .connections_max = s->readers};

	(void)pthread_mutex_lock(&s->pool_lock);
	load.connections = s->opened - s->idle_count;
	(void)pthread_mutex_unlock(&s->pool_lock);
	return load;
}

const struct sql_ops sql_sqlite_ops = {
	.open = sqlite_open,
	.free = sqlite_free,
	.write = sqlite_write,
	.write_start = sqlite_write_start,
	.read = sqlite_read,
	.listen = sqlite_listen,
	.load = sqlite_load,
	.now = tx_now,
	.notify = tx_notify,
	.lock_schema = tx_lock_schema,
	.exec = tx_exec,
	.script = tx_script,
	.query = tx_query,
	.rows_free = tx_rows_free,
	.next = tx_next,
	.col_type = col_type,
	.col_i64 = col_i64,
	.col_real = col_real,
	.col_text = col_text,
	.col_blob = col_blob,
};

/* --- a copy while others write --- */

/* All pages under one read lock: in WAL mode that holds up no writer. */
static int copy_pages(sqlite3 *from, sqlite3 *to, int64_t deadline_ns, struct err *err)
{
	sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
	int step = SQLITE_BUSY;

	if (backup == NULL)
		return err_set(err, ERR_IO, "%s", sqlite3_errmsg(to));
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

int sql_backup(const char *from, const char *to, int64_t timeout_ns, struct err *err)
{
	struct connection source = {0};
	struct connection target = {0};
	int r;

	if (access(from, F_OK) != 0)
		return err_sys(err, "open %s", from);
	r = connection_open(&source, from, timeout_ns, "", err);
	/* One file without a log beside it, synced when it is whole. */
	if (r == 0)
		r = connection_open(&target, to, timeout_ns, "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=FULL;",
				    err);
	if (r == 0)
		r = copy_pages(source.db, target.db, clock_monotonic_ns() + timeout_ns, err);
	connection_close(&target);
	connection_close(&source);
	return r < 0 ? err_wrap(err, "copy %s", from) : 0;
}
