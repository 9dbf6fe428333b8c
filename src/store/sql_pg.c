/*
 * PostgreSQL behind the SQL face: a pool of connections, each function in a transaction of its own.
 *
 * READ COMMITTED for writes: a transaction that changes a job locks the job's row first, so there is nothing that a
 * stricter level would find and that would be worth its failures. Reads see one snapshot (REPEATABLE READ). What the
 * server refuses for the moment (40001, 40P01) runs again, with growing pauses. Where the connection is lost before
 * COMMIT was sent, nothing has happened, and the function runs once more on a fresh one: so a restart of the server is
 * not seen by callers at all, if it is quick. Once COMMIT was sent nobody knows, and nobody here may guess: the caller
 * gets ERR_UNAVAILABLE and says to its own caller that it may have happened or not; who asks again must be able to
 * (deliveries have ids, jobs idempotency keys, completions fences).
 *
 * Nothing but prepared statements and settings lives in a session, and with prepare=false not those either.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/mem.h"
#include "base/queue.h"
#include "store/pg_client.h"
#include "store/pg_signals.h"
#include "store/sql_backend.h"

enum {
	CONNECTIONS_DEFAULT = 10,
	WAITERS_MAX = 1024,
	QUEUE_MAX = 8192,
	TRIES_MAX = 10,	    /* of one function, on 40001 and 40P01 */
	PAUSE_MAX_MS = 200, /* between them */
	GRACE_S = 2,	    /* that the server's own timeout has before ours */
	LOCK_S = 2,	    /* that a migration waits for a lock */
	MIGRATION_S = 3600, /* that a statement of one may take */
};

/* Of all programs named Nimbus: any number that nobody else would take. */
#define MIGRATION_LOCK "7811884293345042"

struct pg {
	struct sql base;
	struct dsn dsn;
	int64_t timeout_ns;
	unsigned size;
	char *settings;	      /* of each transaction; NULL: of the session */
	pthread_mutex_t lock; /* all of the pool */
	pthread_cond_t freed;
	struct pg_client *idle[SQL_CONNECTIONS_MAX];
	unsigned idle_count;
	unsigned opened;
	unsigned waiting;
	struct queue *queue; /* of struct request */
	pthread_t workers[SQL_CONNECTIONS_MAX];
	unsigned worker_count;
	struct pg_signals *signals;
};

struct note {
	const char *channel;
	char *payload;
};

struct tx {
	struct sql_tx base;
	struct pg_client *client;
	int64_t timeout_ns;	 /* of one statement */
	enum pg_trouble trouble; /* of the first that failed */
	int64_t now_at;
	int64_t now_ns; /* when now_at was read; 0: not yet */
	struct note notes[SQL_NOTES_MAX];
	size_t note_count;
};

struct rows {
	struct sql_rows base;
	struct pg_result *result;
	int row;
	struct buf *bytes; /* decoded, one for each column; NULL: none yet */
};

struct request {
	sql_fn *fn;
	void *ctx;
	struct sql_inbox *inbox;
	sql_done_fn *done;
};

/* --- the pool --- */

/* statement_timeout ends what takes too long, the other ends a transaction whose program was stopped in the middle of
 * it: its locks must not hold up the others. A database that would answer before the disk has it is told not to. The
 * enable_* say what all our statements are: few rows by an index, however many there are and whatever the server
 * believes of tables that fill and empty within a minute; a plan for the table of a moment ago must not become a scan.
 */
static char *settings_text(const struct pg *p, bool of_transaction)
{
	long long ms = p->timeout_ns / NS_PER_MS > 0 ? p->timeout_ns / NS_PER_MS : 1;
	const char *local = of_transaction ? "true" : "false";

	return xasprintf(
		"SELECT set_config('statement_timeout', '%lld', %s),"
		" set_config('idle_in_transaction_session_timeout', '%lld', %s),"
		" set_config('bytea_output', 'hex', %s),"
		" set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
		" ELSE current_setting('synchronous_commit') END, %s),"
		" set_config('enable_seqscan', 'off', %s), set_config('enable_bitmapscan', 'off', %s),"
		" set_config('enable_hashjoin', 'off', %s), set_config('enable_mergejoin', 'off', %s),"
		" set_config('jit', 'off', %s)",
		ms, local, ms, local, local, local, local, local, local, local, local);
}

static int connect_one(struct pg *p, struct pg_client **ret, struct err *err)
{
	autoptr(pg_client) client = NULL;
	int64_t deadline_ns = clock_monotonic_ns() + p->timeout_ns;
	int rc = pg_client_open(&p->dsn, deadline_ns, &client, err);

	if (rc == 0 && p->settings == NULL) {
		autofree char *text = settings_text(p, false);
		rc = pg_client_script(client, text, deadline_ns, NULL, err);
	}
	if (rc == 0)
		*ret = TAKE(client);
	return rc;
}

/* All that idle are closed: after a restart of the server they are as dead as the one that was found so. */
static void close_idle_locked(struct pg *p)
{
	while (p->idle_count > 0) {
		pg_client_free(p->idle[--p->idle_count]);
		p->opened--;
	}
	(void)pthread_cond_broadcast(&p->freed);
}

/* The right to one connection; *ret is an idle one, or NULL: it is to be opened. */
static int take_place(struct pg *p, bool fresh, struct pg_client **ret, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + p->timeout_ns;
	bool in_time = true;

	(void)pthread_mutex_lock(&p->lock);
	if (fresh)
		close_idle_locked(p);
	bool room = p->waiting < WAITERS_MAX;
	p->waiting += room;
	while (room && p->idle_count == 0 && p->opened == p->size && in_time)
		in_time = clock_cond_wait(&p->freed, &p->lock, deadline_ns);
	p->waiting -= room;
	bool got = room && (p->idle_count > 0 || p->opened < p->size);
	if (got && p->idle_count > 0)
		*ret = p->idle[--p->idle_count];
	else if (got)
		p->opened++;
	(void)pthread_mutex_unlock(&p->lock);
	return got ? 0
		   : err_set(err, ERR_UNAVAILABLE,
			     "the database cannot keep up: all %u connections are in use (NIMBUS_DATABASE_POOL_SIZE)",
			     p->size);
}

static void give_back(struct pg *p, struct pg_client *client)
{
	bool good = client != NULL && pg_client_is_free(client);

	(void)pthread_mutex_lock(&p->lock);
	if (good)
		p->idle[p->idle_count++] = client;
	else
		p->opened--;
	(void)pthread_cond_signal(&p->freed);
	(void)pthread_mutex_unlock(&p->lock);
	if (!good)
		pg_client_free(client);
}

static int take_client(struct pg *p, bool fresh, struct pg_client **ret, struct err *err)
{
	struct pg_client *client = NULL;
	int rc = take_place(p, fresh, &client, err);

	if (rc < 0)
		return rc;
	if (client == NULL)
		rc = connect_one(p, &client, err);
	if (rc < 0)
		give_back(p, NULL);
	else
		*ret = client;
	return rc;
}

/* --- inside a transaction --- */

static struct tx *tx_of(struct sql_tx *tx)
{
	return container_of(tx, struct tx, base);
}

static int64_t deadline_of(const struct tx *tx)
{
	return clock_monotonic_ns() + tx->timeout_ns + GRACE_S * NS_PER_S;
}

static int note_trouble(struct tx *tx, int rc)
{
	if (rc < 0 && tx->trouble == PG_FINE)
		tx->trouble = pg_client_trouble(tx->client);
	return rc;
}

static int run(struct tx *tx, const char *text, const struct sql_args *args, struct pg_result **ret, struct err *err)
{
	return note_trouble(tx, pg_client_exec(tx->client, text, args, deadline_of(tx), ret, err));
}

/* Who does not ask how many rows it changed does not wait for it: the answer comes with the next statement's, or the
 * commit's. So a chain of changes is one round trip. */
static int tx_exec(struct sql_tx *base, const char *text, const struct sql_args *args, int64_t *ret_changed,
		   struct err *err)
{
	struct tx *tx = tx_of(base);
	autoptr(pg_result) result = NULL;

	if (ret_changed == NULL && base->writable)
		return note_trouble(tx, pg_client_defer(tx->client, text, args, deadline_of(tx), err));
	int rc = run(tx, text, args, &result, err);
	if (rc == 0 && ret_changed != NULL)
		*ret_changed = pg_result_changed(result);
	return rc;
}

static int tx_query(struct sql_tx *base, const char *text, const struct sql_args *args, struct sql_rows **ret,
		    struct err *err)
{
	autoptr(pg_result) result = NULL;
	int rc = run(tx_of(base), text, args, &result, err);

	if (rc < 0)
		return rc;
	struct rows *rows = xcalloc(1, sizeof(*rows));
	*rows = (struct rows){.base.tx = base, .result = TAKE(result), .row = -1};
	*ret = &rows->base;
	return 0;
}

static int tx_script(struct sql_tx *base, const char *text, struct err *err)
{
	struct tx *tx = tx_of(base);

	return note_trouble(tx, pg_client_script(tx->client, text, deadline_of(tx), NULL, err));
}

/* Read once in a transaction; from there on this machine's own clock counts, which does not jump. */
static int tx_now(struct sql_tx *base, int64_t *ret, struct err *err)
{
	struct tx *tx = tx_of(base);

	if (tx->now_ns == 0) {
		autoptr(pg_result) result = NULL;
		int rc = run(tx, "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)", SQL_NO_ARGS,
			     &result, err);
		int64_t us = 0;
		if (rc == 0)
			rc = str_to_i64(pg_result_text(result, 0, 0), "time", 0, INT64_MAX / 1000, &us, err);
		if (rc < 0)
			return rc;
		tx->now_at = us * NS_PER_US;
		tx->now_ns = clock_boottime_ns();
	}
	*ret = tx->now_at + (clock_boottime_ns() - tx->now_ns);
	return 0;
}

static bool is_noted(const struct tx *tx, size_t count, const char *channel, const char *payload)
{
	for (size_t i = 0; i < count; i++) {
		const struct note *n = &tx->notes[i];
		if (strcmp(n->channel, channel) == 0 && (n->payload[0] == '\0' || strcmp(n->payload, payload) == 0))
			return true;
	}
	return false;
}

/* Too many to tell: one "anything may have changed" for each channel. */
static void collapse_notes(struct tx *tx)
{
	size_t kept = 0;

	for (size_t i = 0; i < tx->note_count; i++) {
		struct note n = tx->notes[i];
		n.payload[0] = '\0';
		if (is_noted(tx, kept, n.channel, ""))
			free(n.payload);
		else
			tx->notes[kept++] = n;
	}
	tx->note_count = kept;
}

static void tx_notify(struct sql_tx *base, const char *channel, const char *payload)
{
	struct tx *tx = tx_of(base);

	if (tx->note_count == SQL_NOTES_MAX && !is_noted(tx, tx->note_count, channel, payload)) {
		collapse_notes(tx);
		payload = "";
	}
	if (is_noted(tx, tx->note_count, channel, payload))
		return;
	assert(tx->note_count < SQL_NOTES_MAX); /* there are fewer channels */
	tx->notes[tx->note_count++] = (struct note){.channel = channel, .payload = xstrdup(payload)};
}

/* Steps of a migration come one after the other, whoever makes them; none waits long for the others' locks. */
static int tx_lock_schema(struct sql_tx *base, struct err *err)
{
	struct tx *tx = tx_of(base);
	autofree char *text = xasprintf("SET LOCAL lock_timeout = '%ds'; SET LOCAL statement_timeout = '%ds';"
					"SET LOCAL idle_in_transaction_session_timeout = 0;"
					"SELECT pg_advisory_xact_lock(" MIGRATION_LOCK ")",
					LOCK_S, MIGRATION_S);

	tx->timeout_ns = MIGRATION_S * NS_PER_S;
	return tx_script(base, text, err);
}

/* --- rows --- */

static struct rows *rows_of(struct sql_rows *rows)
{
	return container_of(rows, struct rows, base);
}

static void forget_bytes(struct rows *rows)
{
	for (unsigned i = 0; rows->bytes != NULL && i < pg_result_columns(rows->result); i++)
		buf_clear(&rows->bytes[i]);
}

static void tx_rows_free(struct sql_rows *base)
{
	struct rows *rows = rows_of(base);

	for (unsigned i = 0; rows->bytes != NULL && i < pg_result_columns(rows->result); i++)
		buf_fini(&rows->bytes[i]);
	free(rows->bytes);
	pg_result_free(rows->result);
	free(rows);
}

static int tx_next(struct sql_rows *base, struct err *err)
{
	struct rows *rows = rows_of(base);

	(void)err;
	forget_bytes(rows);
	return ++rows->row < pg_result_rows(rows->result) ? 1 : 0;
}

static struct str raw_text(struct sql_rows *base, unsigned column)
{
	const struct rows *rows = rows_of(base);

	assert(rows->row >= 0 && rows->row < pg_result_rows(rows->result));
	assert(column < pg_result_columns(rows->result));
	return pg_result_text(rows->result, rows->row, column);
}

static enum sql_type col_type(struct sql_rows *base, unsigned column)
{
	const struct rows *rows = rows_of(base);

	(void)raw_text(base, column); /* that there is such a column */
	return pg_result_type(rows->result, rows->row, column);
}

static int64_t col_i64(struct sql_rows *base, unsigned column)
{
	struct str text = raw_text(base, column);
	int64_t value = 0;

	if (text.len == 1 && (text.data[0] == 't' || text.data[0] == 'f'))
		return text.data[0] == 't';
	if (str_to_i64(text, "number", INT64_MIN, INT64_MAX, &value, NULL) < 0)
		return (int64_t)strtod(text.data, NULL);
	return value;
}

static double col_real(struct sql_rows *base, unsigned column)
{
	return strtod(raw_text(base, column).data, NULL);
}

/* "\x" and hex, decoded where it is asked for. */
static struct str col_blob(struct sql_rows *base, unsigned column)
{
	struct rows *rows = rows_of(base);
	struct str text = raw_text(base, column);

	enum sql_type type = col_type(base, column);

	if (type == SQL_NULL)
		return (struct str){NULL, 0};
	if (type != SQL_BLOB)
		return text;
	if (rows->bytes == NULL)
		rows->bytes = xcalloc(pg_result_columns(rows->result), sizeof(*rows->bytes));
	struct buf *bytes = &rows->bytes[column];
	struct str hex = {text.data + 2, text.len - 2};
	struct err err;
	if (bytes->len == 0 && decode_hex(hex, bytes, &err) < 0)
		buf_clear(bytes); /* bytea_output is set to hex, so this is what the server never sends */
	return buf_str(bytes);
}

static struct str col_text(struct sql_rows *base, unsigned column)
{
	return col_blob(base, column);
}

/* --- transactions --- */

static void forget_notes(struct tx *tx)
{
	for (size_t i = 0; i < tx->note_count; i++)
		free(tx->notes[i].payload);
	tx->note_count = 0;
}

static void send_notes(struct pg *p, struct tx *tx)
{
	for (size_t i = 0; i < tx->note_count; i++)
		pg_signals_send(p->signals, tx->notes[i].channel, TAKE(tx->notes[i].payload));
}

static void roll_back(struct tx *tx)
{
	if (tx->trouble != PG_LOST && pg_client_has_begun(tx->client))
		pg_client_roll_back(tx->client, deadline_of(tx));
}

/* Where the server did not say that it did not happen, it may have happened. See the top. */
static int commit(struct tx *tx, struct err *err)
{
	if (!pg_client_has_begun(tx->client))
		return 0; /* it has done nothing */
	int rc = pg_client_commit(tx->client, deadline_of(tx), err);
	if (rc == 0)
		return 0;
	if (!pg_client_has_undone(tx->client))
		return err_wrap(err, "the connection was lost during a commit, which may have happened or not");
	(void)note_trouble(tx, rc);
	roll_back(tx);
	return rc;
}

static int attempt(struct pg *p, struct tx *tx, sql_fn *fn, void *ctx, struct err *err)
{
	pg_client_begin(tx->client,
			tx->base.writable ? "BEGIN ISOLATION LEVEL READ COMMITTED"
					  : "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
			p->settings);
	int rc = sql_call(&tx->base, fn, ctx, err);
	if (rc >= 0 && tx->base.writable) {
		int committed = commit(tx, err);
		if (committed == 0)
			send_notes(p, tx);
		else
			rc = committed;
	} else {
		roll_back(tx);
	}
	pg_client_begin(tx->client, NULL, NULL);
	forget_notes(tx);
	return rc;
}

/* Even over the whole of a growing span, so that those who collided do not meet again. */
static void pause_before(unsigned try)
{
	uint64_t most_ms = 2U << (try < 7 ? try : 7);
	uint64_t ns = crypto_random_below((most_ms < PAUSE_MAX_MS ? most_ms : PAUSE_MAX_MS) * NS_PER_MS);

	clock_pause((int64_t)ns);
}

static int transact(struct pg *p, bool writable, sql_fn *fn, void *ctx, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + p->timeout_ns;
	bool fresh = false;

	for (unsigned try = 1;; try++) {
		struct pg_client *client = NULL;
		int rc = take_client(p, fresh, &client, err);
		if (rc < 0)
			return rc;
		struct tx tx = {.base = {.ops = &sql_pg_ops, .writable = writable},
				.client = client,
				.timeout_ns = p->timeout_ns};
		rc = attempt(p, &tx, fn, ctx, err);
		give_back(p, client);
		if (rc >= 0 || tx.trouble == PG_FINE || tx.trouble == PG_REFUSED)
			return rc;
		if (tx.trouble == PG_LOST && fresh)
			return rc;
		if (try == TRIES_MAX || clock_monotonic_ns() > deadline_ns)
			return err_wrap(err, "given up after %u tries", try);
		fresh = tx.trouble == PG_LOST;
		if (!fresh)
			pause_before(try);
	}
}

static int pg_write(struct sql *sql, sql_fn *fn, void *ctx, struct err *err)
{
	struct err local = {0};
	int rc = transact(container_of(sql, struct pg, base), true, fn, ctx, &local);

	if (rc < 0 && err != NULL)
		*err = local;
	return rc;
}

static int pg_read(struct sql *sql, sql_fn *fn, void *ctx, struct err *err)
{
	struct err local = {0};
	int rc = transact(container_of(sql, struct pg, base), false, fn, ctx, &local);

	if (rc < 0 && err != NULL)
		*err = local;
	return rc;
}

/* --- writes of event loops --- */

static void *worker_main(void *arg)
{
	struct pg *p = arg;

	for (;;) {
		struct request *r = queue_pop(p->queue, INT64_MAX);
		if (r == NULL)
			return NULL;
		struct err err = {0};
		int rc = transact(p, true, r->fn, r->ctx, &err);
		sql_inbox_post(r->inbox, r->done, r->ctx, rc, &err);
		free(r);
	}
}

/* Begun with the first write that needs them: half as many as connections, so that sql_write() finds some too. */
static int start_workers(struct pg *p, struct err *err)
{
	unsigned wanted = (p->size + 1) / 2;
	int failed = 0;

	(void)pthread_mutex_lock(&p->lock);
	while (p->worker_count < wanted && failed == 0) {
		failed = pthread_create(&p->workers[p->worker_count], NULL, worker_main, p);
		p->worker_count += failed == 0;
	}
	bool some = p->worker_count > 0;
	(void)pthread_mutex_unlock(&p->lock);
	errno = failed;
	return some ? 0 : err_sys(err, "start a thread");
}

static int pg_write_start(struct sql *sql, struct sql_inbox *inbox, sql_fn *fn, sql_done_fn *done, void *ctx,
			  struct err *err)
{
	struct pg *p = container_of(sql, struct pg, base);
	int rc = start_workers(p, err);

	if (rc < 0)
		return rc;
	struct request *r = xcalloc(1, sizeof(*r));
	*r = (struct request){.fn = fn, .ctx = ctx, .inbox = inbox, .done = done};
	if (!queue_try_push(p->queue, r)) {
		free(r);
		return err_set(err, ERR_UNAVAILABLE, "the database cannot keep up: too many writes wait");
	}
	return 0;
}

static int pg_listen(struct sql *sql, const char *channel, sql_note_fn *fn, void *ctx, struct err *err)
{
	return pg_signals_listen(container_of(sql, struct pg, base)->signals, channel, fn, ctx, err);
}

/* --- life --- */

static void pg_free(struct sql *sql)
{
	struct pg *p = container_of(sql, struct pg, base);

	queue_close(p->queue);
	for (unsigned i = 0; i < p->worker_count; i++)
		(void)pthread_join(p->workers[i], NULL);
	pg_signals_free(p->signals);
	(void)pthread_mutex_lock(&p->lock);
	close_idle_locked(p);
	assert(p->opened == 0);
	(void)pthread_mutex_unlock(&p->lock);
	(void)pthread_cond_destroy(&p->freed);
	(void)pthread_mutex_destroy(&p->lock);
	queue_free(p->queue);
	dsn_fini(&p->dsn);
	free(p->settings);
	free(p->base.shown);
	free(p);
}

static int pg_open(struct dsn *dsn, const struct sql_opts *opts, struct sql **ret, struct err *err)
{
	struct pg *p = xcalloc(1, sizeof(*p));

	p->base = (struct sql){.ops = &sql_pg_ops, .shown = xstrdup(dsn->shown)};
	p->dsn = TAKE_STRUCT(*dsn);
	p->dsn.no_prepare |= opts->no_prepare;
	p->timeout_ns = opts->timeout_ns;
	p->size = opts->connections != 0 ? opts->connections : CONNECTIONS_DEFAULT;
	if (p->dsn.no_prepare)
		p->settings = settings_text(p, true);
	p->queue = queue_new(QUEUE_MAX);
	p->signals = pg_signals_new(&p->dsn);
	(void)pthread_mutex_init(&p->lock, NULL);
	clock_cond_init(&p->freed);
	/* What is wrong with the address is said at the start. */
	struct pg_client *client = NULL;
	int rc = take_client(p, false, &client, err);
	if (rc < 0) {
		pg_free(&p->base);
		return rc;
	}
	give_back(p, client);
	*ret = &p->base;
	return 0;
}

static struct sql_load pg_load(struct sql *sql)
{
	struct pg *p = container_of(sql, struct pg, base);

	(void)pthread_mutex_lock(&p->lock);
	struct sql_load load = {.waiting = p->waiting,
				.waiting_max = WAITERS_MAX,
				.connections = p->opened - p->idle_count,
				.connections_max = p->size};
	(void)pthread_mutex_unlock(&p->lock);
	return load;
}

const struct sql_ops sql_pg_ops = {
	.open = pg_open,
	.free = pg_free,
	.write = pg_write,
	.write_start = pg_write_start,
	.read = pg_read,
	.listen = pg_listen,
	.load = pg_load,
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
