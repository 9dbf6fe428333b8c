/*
 * What a back end of the SQL face provides. Only sql.c and the back ends include this.
 */
#pragma once

#include "store/dsn.h"
#include "store/sql.h"

struct sql_ops {
	/* May take the address over. */
	int (*open)(struct dsn *dsn, const struct sql_opts *opts, struct sql **ret, struct err *err);
	void (*free)(struct sql *sql);
	int (*write)(struct sql *sql, sql_fn *fn, void *ctx, struct err *err);
	int (*write_start)(struct sql *sql, struct sql_inbox *inbox, sql_fn *fn, sql_done_fn *done, void *ctx,
			   struct err *err);
	int (*read)(struct sql *sql, sql_fn *fn, void *ctx, struct err *err);
	int (*listen)(struct sql *sql, const char *channel, sql_note_fn *fn, void *ctx, struct err *err);
	struct sql_load (*load)(struct sql *sql);
	int (*now)(struct sql_tx *tx, int64_t *ret, struct err *err);
	void (*notify)(struct sql_tx *tx, const char *channel, const char *payload);
	/* Until the transaction ends no other migrates. Waits for locks are short in it, statements may be long. */
	int (*lock_schema)(struct sql_tx *tx, struct err *err);
	/* ret_changed may be NULL. */
	int (*exec)(struct sql_tx *tx, const char *text, const struct sql_args *args, int64_t *ret_changed,
		    struct err *err);
	/* Several statements without parameters: a migration. */
	int (*script)(struct sql_tx *tx, const char *text, struct err *err);
	int (*query)(struct sql_tx *tx, const char *text, const struct sql_args *args, struct sql_rows **ret,
		     struct err *err);
	void (*rows_free)(struct sql_rows *rows);
	int (*next)(struct sql_rows *rows, struct err *err);
	enum sql_type (*col_type)(struct sql_rows *rows, unsigned column);
	int64_t (*col_i64)(struct sql_rows *rows, unsigned column);
	double (*col_real)(struct sql_rows *rows, unsigned column);
	struct str (*col_text)(struct sql_rows *rows, unsigned column);
	struct str (*col_blob)(struct sql_rows *rows, unsigned column);
};

/* Each is the first member of the back end's own struct. */
struct sql {
	const struct sql_ops *ops;
	char *shown;
	void (*migrating)(const char *set, int64_t version, const char *name); /* struct sql_opts */
};

struct sql_tx {
	const struct sql_ops *ops;
	bool writable;
	unsigned open_rows;
	/* The first failed statement: the transaction is doomed, whatever its function returns. */
	struct err failed;
};

struct sql_rows {
	struct sql_tx *tx;
};

extern const struct sql_ops sql_sqlite_ops;
extern const struct sql_ops sql_pg_ops;

/* Runs the function: its own answer, or that of the first statement that failed. */
int sql_call(struct sql_tx *tx, sql_fn *fn, void *ctx, struct err *err) must_check;

/* For a migration: that no other runs, and several statements in one text. */
int sql_lock_schema(struct sql_tx *tx, struct err *err) must_check;
int sql_script(struct sql_tx *tx, const char *text, struct err *err) must_check;

/* Hands an answer to the loop that drains the inbox. */
void sql_inbox_post(struct sql_inbox *inbox, sql_done_fn *done, void *ctx, int rc, const struct err *err);
