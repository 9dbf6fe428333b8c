/*
 * LISTEN and NOTIFY for one database: a thread with a connection of its own, begun with the first need of it. Notes are
 * sent after the commits that they tell of, on this connection and not in their transactions: PostgreSQL lets
 * transactions that notify commit only one after the other.
 *
 * With prepare=false (pgbouncer: no session to listen in) the listeners are told "anything may have changed" every
 * second instead.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "store/dsn.h"
#include "store/sql.h"

struct pg_signals;

/* The address is the caller's, and outlives it. */
struct pg_signals *pg_signals_new(const struct dsn *dsn) must_check;
/* Sends what it has, if the server answers. */
void pg_signals_free(struct pg_signals *s);
int pg_signals_listen(struct pg_signals *s, const char *channel, sql_note_fn *fn, void *ctx, struct err *err)
	must_check;
/* Takes the payload's text over. "": anything may have changed. Never blocks, cannot fail: a note is a hint. */
void pg_signals_send(struct pg_signals *s, const char *channel, char *payload);
