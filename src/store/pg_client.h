/*
 * One connection to PostgreSQL: the wrapper of libpq. One thread at a time. Every wait has a deadline (names of hosts
 * are looked up by libc, within its own); where one passed, or the server went away, the connection is of no more use.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "store/dsn.h"
#include "store/sql.h"

struct pg_client;
struct pg_result; /* libpq's own name for it */

/* What a failure means for a transaction. */
enum pg_trouble {
	PG_FINE,
	PG_REFUSED, /* the statement is at fault, or the server does not want it now: again would be the same */
	PG_AGAIN,   /* a serialization failure, a deadlock: the same transaction may succeed */
	PG_LOST,    /* the connection is gone */
};

int pg_client_open(const struct dsn *dsn, int64_t deadline_ns, struct pg_client **ret, struct err *err) must_check;
void pg_client_free(struct pg_client *c);
AUTOPTR_DEFINE(pg_client)

/* Statements without parameters. ret may be NULL; else it gets the last one's result. */
int pg_client_script(struct pg_client *c, const char *text, int64_t deadline_ns, struct pg_result **ret,
		     struct err *err) must_check;

/* A transaction begins with its first statement: the text is sent before that, in one go with it, and `settings` (NULL:
 * nothing) between the two. Both outlive that. */
void pg_client_begin(struct pg_client *c, const char *text, const char *settings);
/* Whether it was sent. */
bool pg_client_has_begun(const struct pg_client *c);
/* One statement, prepared once per connection, unless the address says prepare=false. */
int pg_client_exec(struct pg_client *c, const char *text, const struct sql_args *args, int64_t deadline_ns,
		   struct pg_result **ret, struct err *err) must_check;
/* The same without waiting for the answer: it goes with the next statement that is waited for, or the commit, which
 * then fails where this does. Copies the arguments. */
int pg_client_defer(struct pg_client *c, const char *text, const struct sql_args *args, int64_t deadline_ns,
		    struct err *err) must_check;
int pg_client_commit(struct pg_client *c, int64_t deadline_ns, struct err *err) must_check;
/* After a commit that failed: the server has said that it did not happen. Else nobody knows. */
bool pg_client_has_undone(const struct pg_client *c);
/* Does not wait for the answer. */
void pg_client_roll_back(struct pg_client *c, int64_t deadline_ns);
/* Of the last call. */
enum pg_trouble pg_client_trouble(const struct pg_client *c);
/* Good for another transaction: alive, and in none. */
bool pg_client_is_free(const struct pg_client *c);

/* Readable when there is something to consume. */
int pg_client_fd(const struct pg_client *c);
int pg_client_consume(struct pg_client *c, struct err *err) must_check;
/* The next NOTIFY that was consumed: false when there is none. */
bool pg_client_note(struct pg_client *c, void (*fn)(void *ctx, const char *channel, const char *payload), void *ctx);

void pg_result_free(struct pg_result *r);
AUTOPTR_DEFINE(pg_result)
int pg_result_rows(const struct pg_result *r);
unsigned pg_result_columns(const struct pg_result *r);
/* Rows that the statement inserted, changed or deleted; what it gave where it is a SELECT. */
int64_t pg_result_changed(struct pg_result *r);
enum sql_type pg_result_type(const struct pg_result *r, int row, unsigned column);
/* NUL-terminated, in PostgreSQL's text form: bytes are \x and hex. Empty for NULL. */
struct str pg_result_text(const struct pg_result *r, int row, unsigned column);
