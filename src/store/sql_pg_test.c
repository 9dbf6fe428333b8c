/* What only PostgreSQL does. Runs beside tests/peers/postgresql.py, which it also has kill and stop the server. */
#include "store/sql_test.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "store/dsn.h"

enum { SKIPPED = 77 };

struct fixture {
	char *dsn;
	struct sql *sql;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	const char *table = "CREATE TABLE t (id BIGINT, value BIGINT)";

	f->dsn = test_database("");
	must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err));
	must(sql_write(f->sql, test_statement_fn, &table, &f->err));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sql_free(f->sql);
	free(f->dsn);
	free(f);
	return 0;
}

/* start, stop, restart, kill, pause, resume, tls */
static void server(const char *what)
{
	autofree char *command = xasprintf("%s --folder %s %s", getenv("NIMBUS_TEST_POSTGRESQL_CTL"),
					   getenv("NIMBUS_TEST_POSTGRESQL_FOLDER"), what);

	assert_int_equal(system(command), 0);
}

static int statement(struct fixture *f, const char *text)
{
	return sql_write(f->sql, test_statement_fn, &text, &f->err);
}

struct number {
	const char *text;
	int64_t value;
};

static int number_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct number *n = ctx;
	int rc = sql_get_i64(tx, n->text, SQL_NO_ARGS, &n->value, err);

	return rc < 0 ? rc : 0;
}

static int64_t number(struct fixture *f, const char *text)
{
	struct number n = {.text = text};

	must(sql_read(f->sql, number_fn, &n, &f->err));
	return n.value;
}

static void sleep_ms(int64_t ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * NS_PER_MS};

	(void)nanosleep(&t, NULL);
}

/* The test's address with another piece in place of one of its own. The caller frees it. */
static char *changed(const char *dsn, const char *from, const char *to)
{
	const char *at = strstr(dsn, from);

	assert_non_null(at);
	return xasprintf("%.*s%s%s", (int)(at - dsn), dsn, to, at + strlen(from));
}

/* --- again and again --- */

struct collision {
	struct sql *sql;
	int runs;
};

static int bump_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	(void)ctx;
	return sql_exec(tx, "UPDATE t SET value = value + 1 WHERE id = 1", SQL_NO_ARGS, NULL, err);
}

/* Another transaction changes the row between this one's snapshot and its own change, the first time. */
static int collide_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct collision *c = ctx;
	int64_t value = 0;
	int rc = sql_exec(tx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", SQL_NO_ARGS, NULL, err);

	if (rc == 0)
		rc = sql_get_i64(tx, "SELECT value FROM t WHERE id = 1", SQL_NO_ARGS, &value, err);
	if (c->runs++ == 0 && rc >= 0)
		rc = sql_write(c->sql, bump_fn, NULL, err);
	return rc < 0 ? rc
		      : sql_exec(tx, "UPDATE t SET value = $1 WHERE id = 1", SQL_ARGS(sql_i64(value + 1)), NULL, err);
}

static void test_a_serialization_failure_runs_again(void **state)
{
	struct fixture *f = *state;
	struct collision c = {.sql = f->sql};

	must(statement(f, "INSERT INTO t VALUES (1, 0)"));
	must(sql_write(f->sql, collide_fn, &c, &f->err));
	assert_int_equal(c.runs, 2);
	assert_int_equal(number(f, "SELECT value FROM t"), 2);
}

struct crossing {
	struct sql *sql;
	pthread_t thread;
	pthread_barrier_t *barrier;
	int64_t first, second;
	int runs;
	int rc;
	struct err err;
};

static int cross_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct crossing *c = ctx;
	const char *text = "UPDATE t SET value = value + 1 WHERE id = $1";
	int64_t changed = 0; /* asked for, so that it waits for the lock */
	int rc = sql_exec(tx, text, SQL_ARGS(sql_i64(c->first)), &changed, err);

	if (c->runs++ == 0)
		(void)pthread_barrier_wait(c->barrier);
	return rc < 0 ? rc : sql_exec(tx, text, SQL_ARGS(sql_i64(c->second)), &changed, err);
}

static void *cross_main(void *arg)
{
	struct crossing *c = arg;

	c->rc = sql_write(c->sql, cross_fn, c, &c->err);
	return NULL;
}

static void test_a_deadlock_runs_again(void **state)
{
	struct fixture *f = *state;
	pthread_barrier_t barrier;
	struct crossing c[2] = {{.sql = f->sql, .barrier = &barrier, .first = 1, .second = 2},
				{.sql = f->sql, .barrier = &barrier, .first = 2, .second = 1}};

	assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
	must(statement(f, "INSERT INTO t VALUES (1, 0), (2, 0)"));
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&c[i].thread, NULL, cross_main, &c[i]), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(c[i].thread, NULL), 0);
		assert_outcome(c[i].rc, 0, &c[i].err);
	}
	assert_true(c[0].runs + c[1].runs > 2);
	assert_int_equal(number(f, "SELECT SUM(value) FROM t"), 4);
	(void)pthread_barrier_destroy(&barrier);
}

static int never_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int *runs = ctx;

	(*runs)++;
	return sql_exec(tx, "DO $$ BEGIN RAISE 'not today' USING ERRCODE = '40001'; END $$", SQL_NO_ARGS, NULL, err);
}

static void test_it_does_not_run_again_for_ever(void **state)
{
	struct fixture *f = *state;
	int runs = 0;

	must_be(sql_write(f->sql, never_fn, &runs, &f->err), -ERR_UNAVAILABLE);
	assert_int_equal(runs, 10);
	assert_non_null(strstr(f->err.msg, "given up after 10 tries"));
	assert_non_null(strstr(f->err.msg, "not today"));
}

/* Statements whose answers nobody waits for: the failure of one is the function's, with the message, at whatever place
 * it becomes known. */
static int chain_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const int *ask_after = ctx;
	int64_t one = 0;
	int rc = 0;

	for (int i = 0; i < 100 && rc >= 0; i++) {
		rc = sql_exec(tx, "INSERT INTO u VALUES ($1)", SQL_ARGS(sql_i64(i == 70 ? 7 : i)), NULL, err);
		if (rc >= 0 && i == *ask_after)
			rc = sql_get_i64(tx, "SELECT COUNT(*) FROM u", SQL_NO_ARGS, &one, err);
		if (rc >= 0 && i == *ask_after)
			assert_int_equal(one, *ask_after + 1);
	}
	return rc < 0 ? rc : 0;
}

static void test_a_chain_of_statements_fails_as_one(void **state)
{
	struct fixture *f = *state;
	int places[] = {0, 50, 70, 99, 1000};

	must(statement(f, "CREATE TABLE u (id BIGINT PRIMARY KEY)"));
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		must_be(sql_write(f->sql, chain_fn, &places[i], &f->err), -ERR_CONFLICT);
		assert_non_null(strstr(f->err.msg, "u_pkey"));
		assert_int_equal(number(f, "SELECT COUNT(*) FROM u"), 0);
	}
	must(statement(f, "INSERT INTO u VALUES (1)"));
}

/* --- what the server may say --- */

static void test_what_the_server_says_is_understood(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *state;
		int code;
		const char *advice;
	} cases[] = {
		{"53100", ERR_DISK_FULL, "disk is full"},
		{"53200", ERR_UNAVAILABLE, ""},
		{"55P03", ERR_UNAVAILABLE, ""},
		{"57014", ERR_UNAVAILABLE, ""},
		{"23505", ERR_CONFLICT, ""},
		{"23514", ERR_CONFLICT, ""},
		{"42501", ERR_INTERNAL, "owner"},
		{"54000", ERR_TOO_LARGE, ""},
		{"58030", ERR_IO, ""},
		{"22003", ERR_INTERNAL, ""},
		{"26000", ERR_INTERNAL, "?prepare=false"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autofree char *text =
			xasprintf("DO $$ BEGIN RAISE 'so it is' USING ERRCODE = '%s', DETAIL = 'a value'; END $$",
				  cases[i].state);
		must_be(statement(f, text), -cases[i].code);
		assert_non_null(strstr(f->err.msg, "so it is"));
		assert_non_null(strstr(f->err.msg, cases[i].state));
		assert_non_null(strstr(f->err.msg, cases[i].advice));
		assert_null(strstr(f->err.msg, "a value"));
	}
	must(statement(f, "INSERT INTO t VALUES (1, 0)"));
}

static void test_numbers_that_do_not_fit_are_errors(void **state)
{
	struct fixture *f = *state;
	struct number sum = {.text = "SELECT SUM(value) FROM t"};
	struct number plus = {.text = "SELECT value + 1 FROM t"};

	must(statement(f, "INSERT INTO t VALUES (1, 9223372036854775807), (2, 9223372036854775807)"));
	must_be(sql_read(f->sql, number_fn, &sum, &f->err), -ERR_INTERNAL);
	assert_non_null(strstr(f->err.msg, "64 bits"));
	must_be(sql_read(f->sql, number_fn, &plus, &f->err), -ERR_INTERNAL);
	assert_non_null(strstr(f->err.msg, "out of range"));
}

static int types_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	autoptr(sql_rows) rows = NULL;

	(void)ctx;
	assert_int_equal(
		sql_query(tx,
			  "SELECT COUNT(*), SUM(value), AVG(value), 1 = 1, CAST(1.5 AS REAL), $1, $2, $3, $4, $5"
			  " FROM t WHERE $1 IS NOT NULL",
			  SQL_ARGS(sql_i64(-7), sql_real(0.1), sql_text("x"), sql_blob((struct str){"\0\\x", 3}),
				   sql_null()),
			  &rows, err),
		0);
	assert_int_equal(sql_next(rows, err), 1);
	assert_int_equal(sql_col_i64(rows, 0), 2);
	assert_int_equal(sql_col_i64(rows, 1), 7);
	assert_true(sql_col_real(rows, 2) == 3.5);
	assert_int_equal(sql_col_i64(rows, 2), 3);
	assert_int_equal(sql_col_i64(rows, 3), 1);
	assert_true(sql_col_real(rows, 4) == 1.5);
	assert_int_equal(sql_col_i64(rows, 5), -7);
	assert_true(sql_col_real(rows, 6) == 0.1);
	assert_true(str_eq(sql_col_text(rows, 7), STR("x")));
	assert_true(str_eq(sql_col_blob(rows, 8), (struct str){"\0\\x", 3}));
	assert_true(sql_col_is_null(rows, 9));
	assert_null(sql_col_text(rows, 9).data);
	assert_null(sql_col_blob(rows, 9).data);
	return 0;
}

static void test_values_of_every_type(void **state)
{
	struct fixture *f = *state;

	must(statement(f, "INSERT INTO t VALUES (1, 3), (2, 4)"));
	must(sql_read(f->sql, types_fn, NULL, &f->err));
}

/* A NULL first, then a value: the statement is prepared with what the server made of the first. */
static int null_first_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const char *text = "UPDATE v SET n = $1, s = $2, b = $3, r = $4";
	int rc = sql_exec(tx, text, SQL_ARGS(sql_null(), sql_null(), sql_null(), sql_null()), NULL, err);

	(void)ctx;
	return rc < 0 ? rc
		      : sql_exec(tx, text,
				 SQL_ARGS(sql_i64(5), sql_text("five"), sql_blob((struct str){"\0\xff", 2}),
					  sql_real(5.5)),
				 NULL, err);
}

static void test_a_null_does_not_fix_the_type(void **state)
{
	struct fixture *f = *state;

	must(statement(f, "CREATE TABLE v (n BIGINT, s TEXT, b BYTEA, r DOUBLE PRECISION)"));
	must(statement(f, "INSERT INTO v VALUES (1, '', NULL, 0)"));
	must(sql_write(f->sql, null_first_fn, NULL, &f->err));
	assert_int_equal(number(f, "SELECT COUNT(*) FROM v WHERE n = 5 AND s = 'five' AND length(b) = 2 AND r = 5.5"),
			 1);
}

static int many_statements_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int rc = 0;

	(void)ctx;
	for (int i = 0; i < 1000 && rc >= 0; i++) {
		autofree char *text = xasprintf("SELECT %d + $1", i);
		int64_t value = 0;
		rc = sql_get_i64(tx, text, SQL_ARGS(sql_i64(i)), &value, err);
		assert_int_equal(value, 2 * i);
	}
	return rc < 0 ? rc : 0;
}

static void test_more_statements_than_are_kept(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 2; i++)
		must(sql_write(f->sql, many_statements_fn, NULL, &f->err));
}

static void test_a_stale_plan_is_made_anew(void **state)
{
	struct fixture *f = *state;

	must(statement(f, "INSERT INTO t VALUES (1, 3)"));
	assert_int_equal(number(f, "SELECT * FROM t"), 1);
	must(statement(f, "ALTER TABLE t ADD COLUMN more BIGINT"));
	assert_int_equal(number(f, "SELECT * FROM t"), 1);
}

/* --- addresses --- */

static void test_what_cannot_be_opened(void **state)
{
	struct fixture *f = *state;
	autovar(dsn) dsn = {0};
	must(dsn_parse(str_c(f->dsn), &dsn, &f->err));
	const char *password = secret_reveal(dsn.password).data;
	autofree char *wrong = xasprintf("postgresql://nimbus:hunter22@127.0.0.1:%s/nimbus", dsn.port);
	autofree char *nobody = xasprintf("postgresql://nobody:hunter22@127.0.0.1:%s/nimbus", dsn.port);
	autofree char *nowhere = changed(f->dsn, dsn.port, "1");
	autofree char *from = xasprintf(":%s/nimbus", dsn.port);
	autofree char *to = xasprintf(":%s/elsewhere", dsn.port);
	autofree char *no_database = changed(f->dsn, from, to);
	autofree char *tls = xasprintf("%s?sslmode=require", f->dsn);
	autofree char *nonsense = xasprintf("%s?sslmode=nonsense", f->dsn);
	autofree char *no_socket = xasprintf("postgresql:///nimbus?host=/nowhere&user=u&password=hunter22");
	const struct {
		const char *dsn, *says;
	} cases[] = {
		{wrong, "correct user and password"},
		{nobody, "correct user and password"},
		{nowhere, "Connection refused"},
		{no_database, "CREATE DATABASE"},
		{tls, "does not support SSL"},
		{nonsense, "sslmode"},
		{no_socket, "/nowhere"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct sql *sql = NULL;
		must_be(sql_open(&(struct sql_opts){.dsn = cases[i].dsn}, &sql, &f->err), -ERR_UNAVAILABLE);
		if (strstr(f->err.msg, cases[i].says) == NULL)
			fail_msg("%s", f->err.msg);
		assert_null(strstr(f->err.msg, password));
		assert_null(strstr(f->err.msg, "hunter22"));
	}
}

static void check_spelling(struct fixture *f, const char *dsn)
{
	autoptr(sql) sql = NULL;
	struct number one = {.text = "SELECT 1"};

	must(sql_open(&(struct sql_opts){.dsn = dsn}, &sql, &f->err));
	must(sql_read(sql, number_fn, &one, &f->err));
	assert_int_equal(one.value, 1);
}

static void test_every_spelling_connects(void **state)
{
	struct fixture *f = *state;
	static const char *const schemes[] = {"postgres://", "postgresql+asyncpg://", "postgresql+psycopg://",
					      "postgresql+psycopg2://"};
	static const char *const options[] = {"sslmode=disable",
					      "sslmode=prefer",
					      "ssl=prefer",
					      "prepare=false",
					      "connect_timeout=3&application_name=x",
					      "options=-c%20geqo%3Doff",
					      "prepared_statement_cache_size=0",
					      "target_session_attrs=read-write"};

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		autofree char *dsn = changed(f->dsn, "postgresql://", schemes[i]);
		check_spelling(f, dsn);
	}
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		autofree char *dsn = xasprintf("%s?%s", f->dsn, options[i]);
		check_spelling(f, dsn);
	}
	autofree char *bare = changed(f->dsn, "127.0.0.1", "");
	autofree char *by_socket = xasprintf("%s?host=%s", bare, getenv("NIMBUS_TEST_POSTGRESQL_FOLDER"));
	check_spelling(f, by_socket);
	autofree char *two = changed(f->dsn, "127.0.0.1", "127.0.0.1:1,127.0.0.1");
	check_spelling(f, two);
}

static void test_tls(void **state)
{
	struct fixture *f = *state;
	const char *folder = getenv("NIMBUS_TEST_POSTGRESQL_FOLDER");
	autofree char *required = xasprintf("%s?sslmode=require", f->dsn);
	autofree char *verified = xasprintf("%s?sslmode=verify-full&sslrootcert=%s/server.crt", f->dsn, folder);
	autofree char *unknown = xasprintf("%s?ssl=verify-full&sslrootcert=/etc/hostname", f->dsn);
	autoptr(sql) sql = NULL;
	struct number tls = {.text = "SELECT COUNT(*) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl"};

	server("tls");
	check_spelling(f, required);
	must(sql_open(&(struct sql_opts){.dsn = verified}, &sql, &f->err));
	must(sql_read(sql, number_fn, &tls, &f->err));
	assert_int_equal(tls.value, 1);
	struct sql *none = NULL;
	must_be(sql_open(&(struct sql_opts){.dsn = unknown}, &none, &f->err), -ERR_UNAVAILABLE);
	assert_non_null(strstr(f->err.msg, "root certificate"));
}

/* --- limits --- */

static int read_write_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int rc = sql_exec(tx, "SET TRANSACTION READ WRITE", SQL_NO_ARGS, NULL, err);

	return rc < 0 ? rc : test_statement_fn(tx, ctx, err);
}

static void test_a_server_that_only_reads(void **state)
{
	struct fixture *f = *state;
	const char *back = "ALTER DATABASE nimbus RESET default_transaction_read_only";

	must(statement(f, "ALTER DATABASE nimbus SET default_transaction_read_only = on"));
	sql_free(TAKE(f->sql));
	must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err));
	must_be(statement(f, "INSERT INTO t VALUES (1, 0)"), -ERR_UNAVAILABLE);
	assert_non_null(strstr(f->err.msg, "the server only reads"));
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), 0);
	must(sql_write(f->sql, read_write_fn, &back, &f->err));
	/* The connection that only reads was not kept. */
	must(statement(f, "INSERT INTO t VALUES (1, 0)"));
}

static void test_a_server_without_room(void **state)
{
	struct fixture *f = *state;
	struct sql *sql = NULL;

	must(statement(f, "ALTER DATABASE nimbus CONNECTION LIMIT 1"));
	must_be(sql_open(&(struct sql_opts){.dsn = f->dsn}, &sql, &f->err), -ERR_UNAVAILABLE);
	assert_non_null(strstr(f->err.msg, "NIMBUS_DATABASE_POOL_SIZE"));
	must(statement(f, "ALTER DATABASE nimbus CONNECTION LIMIT -1"));
}

struct member {
	struct sql *sql;
	pthread_t thread;
	int failures;
};

static int slow_insert_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	(void)ctx;
	return sql_exec(tx, "INSERT INTO t SELECT 1, 1 FROM pg_sleep(0.005)", SQL_NO_ARGS, NULL, err);
}

static void *crowd_main(void *arg)
{
	struct member *m = arg;

	for (int i = 0; i < 10; i++) {
		struct err err;
		m->failures += sql_write(m->sql, slow_insert_fn, NULL, &err) != 0;
	}
	return NULL;
}

static void test_a_crowd_shares_few_connections(void **state)
{
	struct fixture *f = *state;
	autoptr(sql) two = NULL;
	struct member crowd[30];

	must(sql_open(&(struct sql_opts){.dsn = f->dsn, .connections = 2}, &two, &f->err));
	for (size_t i = 0; i < ARRAY_LEN(crowd); i++) {
		crowd[i] = (struct member){.sql = two};
		assert_int_equal(pthread_create(&crowd[i].thread, NULL, crowd_main, &crowd[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(crowd); i++) {
		assert_int_equal(pthread_join(crowd[i].thread, NULL), 0);
		assert_int_equal(crowd[i].failures, 0);
	}
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), 300);
}

/* --- a server that goes away --- */

static void test_a_restart_is_not_seen(void **state)
{
	struct fixture *f = *state;

	must(statement(f, "INSERT INTO t VALUES (1, 0)"));
	server("restart");
	must(statement(f, "INSERT INTO t VALUES (2, 0)"));
	server("kill");
	must_be(statement(f, "INSERT INTO t VALUES (3, 0)"), -ERR_UNAVAILABLE);
	server("start");
	must(statement(f, "INSERT INTO t VALUES (3, 0)"));
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), 3);
}

static void test_a_server_that_stands_still(void **state)
{
	struct fixture *f = *state;
	autoptr(sql) hasty = NULL;
	const char *insert = "INSERT INTO t VALUES (1, 0)";

	must(sql_open(&(struct sql_opts){.dsn = f->dsn, .timeout_ns = NS_PER_S}, &hasty, &f->err));
	must(sql_write(hasty, test_statement_fn, &insert, &f->err));
	autofree char *impatient = xasprintf("%s?connect_timeout=1", f->dsn);
	server("pause");
	int64_t begun_ns = clock_monotonic_ns();
	struct sql *none = NULL;
	must_be(sql_open(&(struct sql_opts){.dsn = impatient, .timeout_ns = 60 * NS_PER_S}, &none, &f->err),
		-ERR_UNAVAILABLE);
	assert_true(clock_monotonic_ns() - begun_ns < 30 * NS_PER_S);
	int rc = sql_write(hasty, test_statement_fn, &insert, &f->err);
	server("resume");
	must_be(rc, -ERR_UNAVAILABLE);
	assert_non_null(strstr(f->err.msg, "does not answer"));
	must(sql_write(hasty, test_statement_fn, &insert, &f->err));
}

static int dawdle_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int64_t one = 0;
	int rc = test_statement_fn(tx, ctx, err);

	if (rc == 0)
		rc = sql_get_i64(tx, "SELECT 1", SQL_NO_ARGS, &one, err); /* so that the first is done */
	sleep_ms(1500);
	return rc < 0 ? rc : test_statement_fn(tx, ctx, err);
}

/* A program that is stopped inside a transaction holds its locks no longer than this. */
static void test_a_transaction_that_stands_still_is_ended(void **state)
{
	struct fixture *f = *state;
	autoptr(sql) hasty = NULL;
	const char *insert = "INSERT INTO t VALUES (1, 0)";
	const char *slow = "SELECT pg_sleep(5)";

	must(sql_open(&(struct sql_opts){.dsn = f->dsn, .timeout_ns = NS_PER_S}, &hasty, &f->err));
	must_be(sql_write(hasty, dawdle_fn, &insert, &f->err), -ERR_UNAVAILABLE);
	must_be(sql_write(hasty, test_statement_fn, &slow, &f->err), -ERR_UNAVAILABLE);
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), 0);
}

enum { WRITERS = 4, WRITES_MAX = 20000, KILLS = 2 };

struct writer {
	struct sql *sql;
	pthread_t thread;
	int64_t base;
	atomic_bool *stop;
	int64_t tried;
	atomic_int acked;
	bool ok[WRITES_MAX];
	int refused;
};

/* Two rows: never one. */
static int pair_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const int64_t *id = ctx;
	int rc = 0;

	for (int64_t half = 0; half < 2 && rc == 0; half++)
		rc = sql_exec(tx, "INSERT INTO t (id, value) VALUES ($1, $2)", SQL_ARGS(sql_i64(*id), sql_i64(half)),
			      NULL, err);
	return rc;
}

static void *write_main(void *arg)
{
	struct writer *w = arg;

	while (!atomic_load(w->stop) && w->tried < WRITES_MAX) {
		struct err err;
		int64_t id = w->base + w->tried;
		int rc = sql_write(w->sql, pair_fn, &id, &err);
		w->ok[w->tried++] = rc == 0;
		(void)atomic_fetch_add(&w->acked, rc == 0);
		if (rc != 0) {
			assert_int_equal(rc, -ERR_UNAVAILABLE);
			w->refused++;
			sleep_ms(5);
		}
	}
	return NULL;
}

static int64_t all_acked(struct writer *writers)
{
	int64_t sum = 0;

	for (size_t i = 0; i < WRITERS; i++)
		sum += atomic_load(&writers[i].acked);
	return sum;
}

struct pairs {
	struct writer *writers;
	int64_t missing, doubled, half;
};

static int check_pairs_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct pairs *p = ctx;

	for (size_t i = 0; i < WRITERS; i++) {
		autofree int64_t *seen = xcalloc(WRITES_MAX, sizeof(*seen));
		autoptr(sql_rows) rows = NULL;
		const struct writer *w = &p->writers[i];
		int rc = sql_query(tx, "SELECT id, COUNT(*) FROM t WHERE id >= $1 AND id < $2 GROUP BY id",
				   SQL_ARGS(sql_i64(w->base), sql_i64(w->base + WRITES_MAX)), &rows, err);
		while (rc >= 0 && (rc = sql_next(rows, err)) > 0)
			seen[sql_col_i64(rows, 0) - w->base] = sql_col_i64(rows, 1);
		if (rc < 0)
			return rc;
		for (int64_t n = 0; n < w->tried; n++) {
			p->missing += w->ok[n] && seen[n] == 0;
			p->half += seen[n] == 1;
			p->doubled += seen[n] > 2;
		}
	}
	return 0;
}

static void test_kill_9_of_the_server_loses_nothing_acknowledged(void **state)
{
	struct fixture *f = *state;
	autofree struct writer *writers = xcalloc(WRITERS, sizeof(*writers));
	struct pairs pairs = {.writers = writers};
	atomic_bool stop = false;
	int refused = 0;

	for (int64_t i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){.sql = f->sql, .base = i * WRITES_MAX, .stop = &stop};
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_main, &writers[i]), 0);
	}
	for (int kill = 0; kill < KILLS; kill++) {
		int64_t before = all_acked(writers);
		while (all_acked(writers) < before + 100)
			sleep_ms(1);
		server("kill");
		server("start");
	}
	int64_t before = all_acked(writers);
	while (all_acked(writers) < before + 20)
		sleep_ms(1);
	atomic_store(&stop, true);
	for (size_t i = 0; i < WRITERS; i++) {
		assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
		refused += writers[i].refused;
	}
	must(sql_read(f->sql, check_pairs_fn, &pairs, &f->err));
	assert_int_equal(pairs.missing, 0);
	assert_int_equal(pairs.half, 0);
	assert_int_equal(pairs.doubled, 0);
	assert_true(refused > 0); /* the kills were felt */
}

/* --- notes --- */

struct heard {
	pthread_mutex_t lock;
	char last[64];
	int notes, anything;
};

static void on_note(void *ctx, const char *payload)
{
	struct heard *h = ctx;

	(void)pthread_mutex_lock(&h->lock);
	if (payload != NULL)
		(void)snprintf(h->last, sizeof(h->last), "%s", payload);
	h->notes += payload != NULL;
	h->anything += payload == NULL;
	(void)pthread_mutex_unlock(&h->lock);
}

static void wait_heard(struct heard *h, int notes, int anything)
{
	int64_t deadline_ns = clock_monotonic_ns() + 30 * NS_PER_S;

	for (;;) {
		(void)pthread_mutex_lock(&h->lock);
		bool done = h->notes >= notes && h->anything >= anything;
		(void)pthread_mutex_unlock(&h->lock);
		if (done)
			return;
		assert_true(clock_monotonic_ns() < deadline_ns);
		sleep_ms(2);
	}
}

static int notify_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const char *const *payload = ctx;

	sql_notify(tx, "jobs", *payload);
	sql_notify(tx, "jobs", *payload); /* the same is one */
	sql_notify(tx, "others", *payload);
	return strcmp(*payload, "never") == 0 ? err_set(err, ERR_FORBIDDEN, "undone") : 0;
}

static int notify_much_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	(void)ctx;
	(void)err;
	for (int i = 0; i < 200; i++) {
		autofree char *payload = xasprintf("much %d", i);
		sql_notify(tx, "jobs", payload);
	}
	return 0;
}

static void test_notes_reach_others(void **state)
{
	struct fixture *f = *state;
	struct heard heard = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct heard second = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct sql *other = NULL;
	const char *texts[] = {"first", "never", "second", "third"};

	must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &other, &f->err));
	must(sql_listen(other, "jobs", on_note, &heard, &f->err));
	wait_heard(&heard, 0, 1); /* it listens */
	must(sql_write(f->sql, notify_fn, &texts[0], &f->err));
	wait_heard(&heard, 1, 1);
	assert_string_equal(heard.last, "first");
	must_be(sql_write(f->sql, notify_fn, &texts[1], &f->err), -ERR_FORBIDDEN);
	must(sql_write(f->sql, notify_fn, &texts[2], &f->err));
	wait_heard(&heard, 2, 1);
	assert_string_equal(heard.last, "second");
	must(sql_listen(other, "jobs", on_note, &second, &f->err)); /* a later one */
	wait_heard(&second, 0, 1);

	server("restart");
	wait_heard(&heard, 2, 2); /* it listens again */
	must(sql_write(f->sql, notify_fn, &texts[3], &f->err));
	wait_heard(&heard, 3, 2);
	assert_string_equal(heard.last, "third");
	wait_heard(&second, 1, 2);

	must(sql_write(f->sql, notify_much_fn, NULL, &f->err));
	wait_heard(&heard, 3, 3); /* "anything" instead of two hundred */
	sql_free(other);
	assert_int_equal(heard.anything, 3);
	assert_true(heard.notes < 3 + 64 + 1);
}

static void test_without_sessions_listeners_look_now_and_then(void **state)
{
	struct fixture *f = *state;
	struct heard heard = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct sql *bouncer = NULL;
	const char *dsn = getenv("NIMBUS_TEST_PGBOUNCER");
	const char *text = "first";

	assert_non_null(dsn);
	must(sql_open(&(struct sql_opts){.dsn = dsn}, &bouncer, &f->err));
	must(sql_listen(bouncer, "jobs", on_note, &heard, &f->err));
	must(sql_write(bouncer, notify_fn, &text, &f->err));
	wait_heard(&heard, 0, 3);
	sql_free(bouncer);
}

/* What happens to those who forget ?prepare=false is told so that they can mend it. */
static void test_pgbouncer_without_the_option(void **state)
{
	struct fixture *f = *state;
	autofree char *dsn = changed(getenv("NIMBUS_TEST_PGBOUNCER"), "?prepare=false", "");
	struct number one = {.text = "SELECT 1"};
	int rc = 0;

	for (int i = 0; i < 30 && rc == 0; i++) {
		autoptr(sql) sql = NULL;
		must(sql_open(&(struct sql_opts){.dsn = dsn}, &sql, &f->err));
		rc = sql_write(sql, number_fn, &one, &f->err);
	}
	must_be(rc, -ERR_INTERNAL);
	assert_non_null(strstr(f->err.msg, "needs ?prepare=false"));
}

/* --- the writes of loops --- */

static int order_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	return sql_exec(tx, "INSERT INTO t (id, value) SELECT COUNT(*), $1 FROM t",
			SQL_ARGS(sql_i64(*(const int64_t *)ctx)), NULL, err);
}

static void ignore_done(void *ctx, int rc, const struct err *err)
{
	(void)ctx;
	assert_outcome(rc, 0, err);
}

static void test_with_one_connection_writes_keep_their_order(void **state)
{
	struct fixture *f = *state;
	autoptr(sql_inbox) inbox = NULL;
	struct sql *one = NULL;
	int64_t values[100];

	must(sql_inbox_new(&inbox, &f->err));
	must(sql_open(&(struct sql_opts){.dsn = f->dsn, .connections = 1}, &one, &f->err));
	for (int64_t i = 0; i < (int64_t)ARRAY_LEN(values); i++) {
		values[i] = i;
		must(sql_write_start(one, inbox, order_fn, ignore_done, &values[i], &f->err));
	}
	sql_free(one);
	sql_inbox_drain(inbox);
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t WHERE id = value"), ARRAY_LEN(values));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_a_serialization_failure_runs_again),
		TEST(test_a_deadlock_runs_again),
		TEST(test_it_does_not_run_again_for_ever),
		TEST(test_a_chain_of_statements_fails_as_one),
		TEST(test_what_the_server_says_is_understood),
		TEST(test_numbers_that_do_not_fit_are_errors),
		TEST(test_values_of_every_type),
		TEST(test_a_null_does_not_fix_the_type),
		TEST(test_more_statements_than_are_kept),
		TEST(test_a_stale_plan_is_made_anew),
		TEST(test_what_cannot_be_opened),
		TEST(test_every_spelling_connects),
		TEST(test_a_server_that_only_reads),
		TEST(test_a_server_without_room),
		TEST(test_a_crowd_shares_few_connections),
		TEST(test_a_restart_is_not_seen),
		TEST(test_a_server_that_stands_still),
		TEST(test_a_transaction_that_stands_still_is_ended),
		TEST(test_kill_9_of_the_server_loses_nothing_acknowledged),
		TEST(test_notes_reach_others),
		TEST(test_without_sessions_listeners_look_now_and_then),
		TEST(test_pgbouncer_without_the_option),
		TEST(test_with_one_connection_writes_keep_their_order),
		TEST(test_tls),
	};

	if (test_postgresql() == NULL) {
		print_message("skipped: it runs beside tests/peers/postgresql.py alone\n");
		return SKIPPED;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
