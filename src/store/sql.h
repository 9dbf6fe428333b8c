/*
 * SQL behind one face: SQLite or PostgreSQL. Safe in threads; the loop of an event-driven role uses sql_write_start().
 *
 * A write is a function that gets a transaction. It may run twice (SQLite: when its group was lost; PostgreSQL: on a
 * serialization failure), so it starts from scratch each time and has no side effect but SQL: what it wants to tell
 * the world, it leaves in its context, and the caller says it after sql_write() came back. A negative result undoes
 * everything that the function did; zero or a positive outcome commits, and comes back only once it is durable. A
 * statement that failed fails the whole function, whatever the function returns, as PostgreSQL has it.
 *
 * SQL text is a literal that both back ends understand: parameters are $1, $2 ..., bound by their name; no clock, JSON
 * or date functions, no $1::type. Times are BIGINT Unix nanoseconds that the caller passes. BYTEA is the type of bytes.
 * A SELECT may end in FOR UPDATE, FOR UPDATE OF alias, either with SKIP LOCKED behind it: SQLite has one writer, and
 * its back end cuts that off. Text is UTF-8 without NUL; anything else is refused with ERR_INVALID_FIELD.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct sql;
struct sql_tx;
struct sql_rows;

enum { SQL_CONNECTIONS_MAX = 64 };

struct sql_opts {
	const char *dsn;
	/* SQLite: for sql_read() alone, beside the writer's; 0: 4. PostgreSQL: for all; 0: 10; with 1 what
	 * sql_write_start() is given runs in that order, as it always does on SQLite. */
	unsigned connections;
	bool no_prepare;    /* PostgreSQL: keep nothing in the server's session, as ?prepare=false says */
	int64_t timeout_ns; /* how long a call waits for a connection, a lock or room in the queue; 0: 10 s */
	/* A sync failed: what of the file is on the disk is no longer known, and another sync would not find out, so
	 * the process should end at once and close nothing. From a thread of the store, once. Where it comes back, or
	 * is NULL, every write fails with ERR_IO from then on. */
	void (*failed)(const struct err *err);
	/* A migration is about to make this step, which may take long; name NULL: all of `set` are made. From any
	 * thread, perhaps twice for one step. NULL: nobody wants to know. */
	void (*migrating)(const char *set, int64_t version, const char *name);
};

int sql_open(const struct sql_opts *opts, struct sql **ret, struct err *err) must_check;
/* Finishes every write that was accepted. No other call may be running or follow. */
void sql_free(struct sql *sql);
AUTOPTR_DEFINE(sql)
/* The address without its password. */
const char *sql_shown(const struct sql *sql);

/* How busy it is, and how busy it may be before calls are refused. */
struct sql_load {
	size_t waiting; /* writes, and calls that wait for a connection */
	size_t waiting_max;
	size_t connections; /* in use now; SQLite: of readers */
	size_t connections_max;
};
struct sql_load sql_load(struct sql *sql);

typedef int sql_fn(struct sql_tx *tx, void *ctx, struct err *err);

/* What fn returned, once that is durable; negative: nothing of it happened. ERR_DISK_FULL, ERR_IO, ERR_UNAVAILABLE
 * (busy), or fn's own error. */
int sql_write(struct sql *sql, sql_fn *fn, void *ctx, struct err *err) must_check;
/* fn sees one unchanging state of the database, and may not write. */
int sql_read(struct sql *sql, sql_fn *fn, void *ctx, struct err *err) must_check;

/*
 * Writes of an event loop: fn runs in the writer's thread, the answer comes to the inbox, whose fd becomes readable,
 * and sql_inbox_drain() calls `done` in the loop's thread. The inbox outlives the sql.
 */
struct sql_inbox;
typedef void sql_done_fn(void *ctx, int rc, const struct err *err);
int sql_inbox_new(struct sql_inbox **ret, struct err *err) must_check;
/* Answers that nobody drained are dropped. */
void sql_inbox_free(struct sql_inbox *inbox);
AUTOPTR_DEFINE(sql_inbox)
int sql_inbox_fd(const struct sql_inbox *inbox);
void sql_inbox_drain(struct sql_inbox *inbox);
/* ERR_UNAVAILABLE when the writer is overloaded (then done is not called). Never blocks. */
int sql_write_start(struct sql *sql, struct sql_inbox *inbox, sql_fn *fn, sql_done_fn *done, void *ctx, struct err *err)
	must_check;

/*
 * fn(ctx, payload) in a thread of the store for every sql_notify() of that channel, by any process on the database,
 * until sql_free(). A hint: it comes after the commit, may come twice, and is lost with a process that dies right after
 * its commit, so whoever waits also looks now and then. payload NULL: anything may have changed (listening has begun,
 * or began anew). SQLite: never called, for all writes are this process's own. The channel's text outlives the sql.
 */
typedef void sql_note_fn(void *ctx, const char *payload);
int sql_listen(struct sql *sql, const char *channel, sql_note_fn *fn, void *ctx, struct err *err) must_check;

/* --- inside a transaction --- */

/* The database's clock, Unix ns. It may differ from this machine's, and does not jump where that one does. */
int sql_now(struct sql_tx *tx, int64_t *ret, struct err *err) must_check;
enum { SQL_CHANNEL_MAX = 63, SQL_PAYLOAD_MAX = 1000, SQL_NOTES_MAX = 64 };
/* Wakes the listeners once the write is committed; the same note twice is one. Past SQL_NOTES_MAX in one write they
 * become "anything may have changed". */
void sql_notify(struct sql_tx *tx, const char *channel, const char *payload);

enum sql_type { SQL_NULL, SQL_I64, SQL_REAL, SQL_TEXT, SQL_BLOB };

struct sql_arg {
	enum sql_type type;
	union {
		int64_t i64;
		double real;
		struct str str;
	};
};

struct sql_args {
	const struct sql_arg *items;
	size_t count;
};

enum { SQL_ARGS_MAX = 48 };
#define SQL_ARGS(...)                                                    \
	(&(const struct sql_args){(const struct sql_arg[]){__VA_ARGS__}, \
				  sizeof((const struct sql_arg[]){__VA_ARGS__}) / sizeof(struct sql_arg)})
#define SQL_NO_ARGS ((const struct sql_args *)NULL)

unused_fn static inline struct sql_arg sql_null(void)
{
	return (struct sql_arg){.type = SQL_NULL};
}
unused_fn static inline struct sql_arg sql_i64(int64_t value)
{
	return (struct sql_arg){.type = SQL_I64, .i64 = value};
}
/* 0 as NULL: how an unset time or number is kept. */
unused_fn static inline struct sql_arg sql_i64_or_null(int64_t value)
{
	return value == 0 ? sql_null() : sql_i64(value);
}
unused_fn static inline struct sql_arg sql_bool(bool value)
{
	return sql_i64(value ? 1 : 0);
}
unused_fn static inline struct sql_arg sql_real(double value)
{
	return (struct sql_arg){.type = SQL_REAL, .real = value};
}
/* A NULL pointer is SQL's NULL. */
unused_fn static inline struct sql_arg sql_text(const char *value)
{
	return value == NULL ? sql_null() : (struct sql_arg){.type = SQL_TEXT, .str = str_c(value)};
}
unused_fn static inline struct sql_arg sql_str(struct str value)
{
	return (struct sql_arg){.type = SQL_TEXT, .str = value};
}
unused_fn static inline struct sql_arg sql_blob(struct str bytes)
{
	return (struct sql_arg){.type = SQL_BLOB, .str = bytes};
}

/* ret_changed: how many rows it inserted, changed or deleted. With NULL PostgreSQL's failure may come with a later
 * statement, or only from sql_write(): it fails the function all the same. ERR_CONFLICT: a constraint refused it. */
int sql_exec(struct sql_tx *tx, const char *text, const struct sql_args *args, int64_t *ret_changed, struct err *err)
	must_check;
/* Free the rows before the function returns. */
int sql_query(struct sql_tx *tx, const char *text, const struct sql_args *args, struct sql_rows **ret, struct err *err)
	must_check;
void sql_rows_free(struct sql_rows *rows);
AUTOPTR_DEFINE(sql_rows)
/* 1: at the next row; 0: there is none. */
int sql_next(struct sql_rows *rows, struct err *err) must_check;
/* The first column of the first row: 1 found, 0 no row (*ret untouched). NULL reads as 0. */
int sql_get_i64(struct sql_tx *tx, const char *text, const struct sql_args *args, int64_t *ret, struct err *err)
	must_check;

/* Columns of the row that sql_next() is at, from 0. NULL reads as 0, and as empty text with a NULL pointer. Text and
 * bytes are borrowed until the next sql_next(); text is NUL-terminated. */
bool sql_col_is_null(struct sql_rows *rows, unsigned column);
int64_t sql_col_i64(struct sql_rows *rows, unsigned column);
double sql_col_real(struct sql_rows *rows, unsigned column);
struct str sql_col_text(struct sql_rows *rows, unsigned column);
struct str sql_col_blob(struct sql_rows *rows, unsigned column);
/* A copy in the arena; NULL for NULL. */
char *sql_col_dup(struct sql_rows *rows, unsigned column, struct arena *arena);
