/*
 * The one connection that writes to a SQLite file, and its thread. It takes all requests that wait, runs each in a
 * SAVEPOINT of one transaction, and commits them together: one fsync for the whole group.
 *
 * Some errors (a full disk, I/O, OR ROLLBACK) make SQLite undo the whole transaction on the spot: then what the group's
 * other functions did is lost too. The writer looks after every function, and reruns a lost group one by one, so that
 * only those fail that have a reason to.
 */
#pragma once

#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "store/sqlite_client.h"

enum { SQLITE_WRITES_MAX = 8192 }; /* requests that wait */

struct sqlite_writer;

/* Takes the connection over, whether it comes to work or not. */
int sqlite_writer_new(struct sqlite_file *file, struct sqlite_client *client, struct sqlite_writer **ret,
		      struct err *err) must_check;
/* Finishes every request that was accepted. */
void sqlite_writer_free(struct sqlite_writer *w);
AUTOPTR_DEFINE(sqlite_writer)

/* As sql_write() and sql_write_start(). */
int sqlite_writer_write(struct sqlite_writer *w, sql_fn *fn, void *ctx, struct err *err) must_check;
int sqlite_writer_start(struct sqlite_writer *w, struct sql_inbox *inbox, sql_fn *fn, sql_done_fn *done, void *ctx,
			struct err *err) must_check;
/* How many requests wait. */
size_t sqlite_writer_waiting(struct sqlite_writer *w);
