#include "store/sql.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/sql_backend.h"

int sql_open(const struct sql_opts *opts, struct sql **ret, struct err *err)
{
	struct sql_opts full = *opts;
	autovar(dsn) dsn = {0};
	int rc = dsn_parse(str_c(opts->dsn), &dsn, err);

	if (rc < 0)
		return rc;
	autofree char *shown = xstrdup(dsn.shown);
	if (full.timeout_ns == 0)
		full.timeout_ns = 10 * NS_PER_S;
	if (full.connections > SQL_CONNECTIONS_MAX)
		full.connections = SQL_CONNECTIONS_MAX;
	rc = (dsn.kind == DSN_SQLITE ? &sql_sqlite_ops : &sql_pg_ops)->open(&dsn, &full, ret, err);
	if (rc < 0)
		return err_wrap(err, "database %s", shown);
	(*ret)->migrating = opts->migrating;
	return 0;
}

void sql_free(struct sql *sql)
{
	if (sql != NULL)
		sql->ops->free(sql);
}

const char *sql_shown(const struct sql *sql)
{
	return sql->shown;
}

struct sql_load sql_load(struct sql *sql)
{
	return sql->ops->load(sql);
}

int sql_write(struct sql *sql, sql_fn *fn, void *ctx, struct err *err)
{
	return sql->ops->write(sql, fn, ctx, err);
}

int sql_write_start(struct sql *sql, struct sql_inbox *inbox, sql_fn *fn, sql_done_fn *done, void *ctx, struct err *err)
{
	return sql->ops->write_start(sql, inbox, fn, done, ctx, err);
}

int sql_read(struct sql *sql, sql_fn *fn, void *ctx, struct err *err)
{
	return sql->ops->read(sql, fn, ctx, err);
}

int sql_listen(struct sql *sql, const char *channel, sql_note_fn *fn, void *ctx, struct err *err)
{
	assert(strlen(channel) <= SQL_CHANNEL_MAX);
	return sql->ops->listen(sql, channel, fn, ctx, err);
}

/* Remembers the first failure, so that a function cannot commit half of what it meant. */
static int doom(struct sql_tx *tx, int rc, struct err *err)
{
	if (rc < 0 && tx->failed.code == ERR_NONE) {
		if (err != NULL)
			tx->failed = *err;
		else
			(void)err_set(&tx->failed, (enum err_code) - rc, "a statement failed");
	}
	return rc;
}

/* What one back end would refuse, and the other keep, neither gets. */
static int check_args(const struct sql_args *args, struct err *err)
{
	for (size_t i = 0; args != NULL && i < args->count; i++) {
		const struct sql_arg *arg = &args->items[i];
		if (arg->type == SQL_TEXT && !str_is_utf8(arg->str))
			return err_set(err, ERR_INVALID_FIELD,
				       "text for the database is not UTF-8, or has a NUL byte (value %zu of %zu)",
				       i + 1, args->count);
	}
	return 0;
}

int sql_exec(struct sql_tx *tx, const char *text, const struct sql_args *args, int64_t *ret_changed, struct err *err)
{
	int64_t changed = 0;
	int rc = check_args(args, err);

	if (rc == 0)
		rc = tx->ops->exec(tx, text, args, ret_changed != NULL ? &changed : NULL, err);
	(void)doom(tx, rc, err);

	if (rc == 0 && ret_changed != NULL)
		*ret_changed = changed;
	return rc;
}

int sql_call(struct sql_tx *tx, sql_fn *fn, void *ctx, struct err *err)
{
	int rc = fn(tx, ctx, err);

	assert(tx->open_rows == 0);
	if (rc >= 0 && tx->failed.code != ERR_NONE) {
		*err = tx->failed;
		rc = -err->code;
	}
	return rc;
}

int sql_lock_schema(struct sql_tx *tx, struct err *err)
{
	return doom(tx, tx->ops->lock_schema(tx, err), err);
}

int sql_script(struct sql_tx *tx, const char *text, struct err *err)
{
	return doom(tx, tx->ops->script(tx, text, err), err);
}

int sql_query(struct sql_tx *tx, const char *text, const struct sql_args *args, struct sql_rows **ret, struct err *err)
{
	int rc = check_args(args, err);

	if (rc == 0)
		rc = tx->ops->query(tx, text, args, ret, err);
	if (rc == 0)
		tx->open_rows++;
	return doom(tx, rc, err);
}

int sql_now(struct sql_tx *tx, int64_t *ret, struct err *err)
{
	return doom(tx, tx->ops->now(tx, ret, err), err);
}

void sql_notify(struct sql_tx *tx, const char *channel, const char *payload)
{
	assert(tx->writable);
	assert(strlen(channel) <= SQL_CHANNEL_MAX && strlen(payload) <= SQL_PAYLOAD_MAX);
	tx->ops->notify(tx, channel, payload);
}

void sql_rows_free(struct sql_rows *rows)
{
	if (rows == NULL)
		return;
	struct sql_tx *tx = rows->tx;
	assert(tx->open_rows > 0);
	tx->open_rows--;
	tx->ops->rows_free(rows);
}

int sql_next(struct sql_rows *rows, struct err *err)
{
	assert(rows != NULL);
	return doom(rows->tx, rows->tx->ops->next(rows, err), err);
}

int sql_get_i64(struct sql_tx *tx, const char *text, const struct sql_args *args, int64_t *ret, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(tx, text, args, &rows, err);

	if (rc < 0)
		return rc;
	rc = sql_next(rows, err);
	if (rc > 0)
		*ret = sql_col_i64(rows, 0);
	return rc;
}

bool sql_col_is_null(struct sql_rows *rows, unsigned column)
{
	return rows->tx->ops->col_type(rows, column) == SQL_NULL;
}

int64_t sql_col_i64(struct sql_rows *rows, unsigned column)
{
	return rows->tx->ops->col_i64(rows, column);
}

double sql_col_real(struct sql_rows *rows, unsigned column)
{
	return rows->tx->ops->col_real(rows, column);
}

struct str sql_col_text(struct sql_rows *rows, unsigned column)
{
	return rows->tx->ops->col_text(rows, column);
}

struct str sql_col_blob(struct sql_rows *rows, unsigned column)
{
	return rows->tx->ops->col_blob(rows, column);
}

char *sql_col_dup(struct sql_rows *rows, unsigned column, struct arena *arena)
{
	return sql_col_is_null(rows, column) ? NULL : arena_str(arena, sql_col_text(rows, column));
}

/* --- answers for event loops --- */

struct answer {
	struct answer *next;
	sql_done_fn *done;
	void *ctx;
	int rc;
	struct err err;
};

struct sql_inbox {
	int fd;
	pthread_mutex_t lock; /* first and last */
	struct answer *first;
	struct answer **last;
};

int sql_inbox_new(struct sql_inbox **ret, struct err *err)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return err_sys(err, "make an eventfd");
	struct sql_inbox *inbox = xcalloc(1, sizeof(*inbox));
	inbox->fd = fd;
	inbox->last = &inbox->first;
	(void)pthread_mutex_init(&inbox->lock, NULL);
	*ret = inbox;
	return 0;
}

/* All answers there are, in their order. */
static struct answer *take_answers(struct sql_inbox *inbox)
{
	(void)pthread_mutex_lock(&inbox->lock);
	struct answer *list = TAKE(inbox->first);
	inbox->last = &inbox->first;
	(void)pthread_mutex_unlock(&inbox->lock);
	return list;
}

void sql_inbox_free(struct sql_inbox *inbox)
{
	if (inbox == NULL)
		return;
	for (struct answer *a = take_answers(inbox); a != NULL;) {
		struct answer *next = a->next;
		free(a);
		a = next;
	}
	fd_close(&inbox->fd);
	(void)pthread_mutex_destroy(&inbox->lock);
	free(inbox);
}

int sql_inbox_fd(const struct sql_inbox *inbox)
{
	return inbox->fd;
}

void sql_inbox_post(struct sql_inbox *inbox, sql_done_fn *done, void *ctx, int rc, const struct err *err)
{
	struct answer *a = xcalloc(1, sizeof(*a));

	*a = (struct answer){.done = done, .ctx = ctx, .rc = rc, .err = *err};
	(void)pthread_mutex_lock(&inbox->lock);
	*inbox->last = a;
	inbox->last = &a->next;
	(void)pthread_mutex_unlock(&inbox->lock);
	/* It cannot fail: the counter is far from full. */
	(void)!write(inbox->fd, &(uint64_t){1}, sizeof(uint64_t));
}

void sql_inbox_drain(struct sql_inbox *inbox)
{
	uint64_t count = 0;

	/* Before taking, so that what comes between is announced again. */
	(void)!read(inbox->fd, &count, sizeof(count));
	for (struct answer *a = take_answers(inbox); a != NULL;) {
		struct answer *next = a->next;
		a->done(a->ctx, a->rc, &a->err);
		free(a);
		a = next;
	}
}
