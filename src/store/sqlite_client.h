/*
 * One connection to a SQLite file, with its prepared statements: the wrapper of SQLite's library. One thread at a time.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "store/sql_backend.h"

/* What all connections to a file share. It outlives them. */
struct sqlite_file {
	const char *path;
	const char *shown;
	int64_t timeout_ns;
	int64_t clock_base; /* Unix time when CLOCK_BOOTTIME was 0 */
	void (*failed)(const struct err *err);
	atomic_bool broken; /* a sync failed: nothing is written any more */
};

struct sqlite_client;

int sqlite_client_open(struct sqlite_file *file, const char *pragmas, struct sqlite_client **ret, struct err *err)
	must_check;
void sqlite_client_free(struct sqlite_client *c);
AUTOPTR_DEFINE(sqlite_client)

/* Several statements without parameters. */
int sqlite_client_script(struct sqlite_client *c, const char *text, struct err *err) must_check;

/* fn in a transaction of its own; a write is on the disk when this comes back. */
int sqlite_client_write(struct sqlite_client *c, sql_fn *fn, void *ctx, struct err *err) must_check;
int sqlite_client_read(struct sqlite_client *c, sql_fn *fn, void *ctx, struct err *err) must_check;

/* The parts of a transaction of many functions: a statement of our own without parameters or rows (BEGIN and its like),
 * and one function. */
int sqlite_client_run(struct sqlite_client *c, const char *text, struct err *err) must_check;
int sqlite_client_call(struct sqlite_client *c, bool writable, sql_fn *fn, void *ctx, struct err *err) must_check;
/* Some errors end the transaction on the spot. */
bool sqlite_client_in_transaction(const struct sqlite_client *c);
/* Ends the transaction, where there is one, and looks whether a sync failed. */
void sqlite_client_undo(struct sqlite_client *c);

/* From now on counts the WAL's pages, which a commit of this connection then no longer checkpoints. */
void sqlite_client_watch_wal(struct sqlite_client *c);
/* How many there were after the last commit; 0 until the next one. */
int sqlite_client_take_wal_pages(struct sqlite_client *c);
/* Passive: it never waits for anybody, and nobody for it. What it cannot do, the next does; a disk without room for it
 * has none for the next commit either, which then says so. */
void sqlite_client_checkpoint(struct sqlite_client *c);

/* All pages, as they are at one moment. */
int sqlite_client_copy(struct sqlite_client *from, struct sqlite_client *to, int64_t deadline_ns, struct err *err)
	must_check;

/* The functions of a transaction, for the table of the back end. */
int sqlite_tx_now(struct sql_tx *tx, int64_t *ret, struct err *err);
int sqlite_tx_exec(struct sql_tx *tx, const char *text, const struct sql_args *args, int64_t *ret_changed,
		   struct err *err);
int sqlite_tx_script(struct sql_tx *tx, const char *text, struct err *err);
int sqlite_tx_query(struct sql_tx *tx, const char *text, const struct sql_args *args, struct sql_rows **ret,
		    struct err *err);
void sqlite_rows_free(struct sql_rows *rows);
int sqlite_rows_next(struct sql_rows *rows, struct err *err);
enum sql_type sqlite_col_type(struct sql_rows *rows, unsigned column);
int64_t sqlite_col_i64(struct sql_rows *rows, unsigned column);
double sqlite_col_real(struct sql_rows *rows, unsigned column);
struct str sqlite_col_text(struct sql_rows *rows, unsigned column);
struct str sqlite_col_blob(struct sql_rows *rows, unsigned column);
