#include "store/sql_test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

struct fixture {
	char folder[64];
	char *dsn;
	struct sql *sql;
	struct err err;
};

static int create_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	(void)ctx;
	return sql_exec(tx, "CREATE TABLE t (id BIGINT PRIMARY KEY, value TEXT, bytes BYTEA)", SQL_NO_ARGS, NULL, err);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/nimbus-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	f->dsn = test_database(f->folder);
	must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err));
	must(sql_write(f->sql, create_fn, NULL, &f->err));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sql_free(f->sql);
	must(dir_remove(AT_FDCWD, f->folder, &f->err));
	free(f->dsn);
	free(f);
	return 0;
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

/* Runs one statement without parameters, as a write. */
static int statement_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct number *n = ctx;

	return sql_exec(tx, n->text, SQL_NO_ARGS, NULL, err);
}

static int statement(struct fixture *f, const char *text)
{
	struct number n = {.text = text};

	return sql_write(f->sql, statement_fn, &n, &f->err);
}

/* --- values --- */

static int insert_values(struct sql_tx *tx, void *ctx, struct err *err)
{
	int64_t changed = 0;

	(void)ctx;
	/* $2 comes first in the text: bound by name, not by place. */
	int rc = sql_exec(tx, "INSERT INTO t (value, id, bytes) VALUES ($2, $1, $3)",
			  SQL_ARGS(sql_i64(INT64_MIN), sql_text("größe"), sql_blob((struct str){"a\0b", 3})), &changed,
			  err);
	assert_int_equal(changed, 1);
	if (rc == 0)
		rc = sql_exec(tx, "INSERT INTO t (id, value) VALUES ($1, $2), ($1 + 1, $2)",
			      SQL_ARGS(sql_i64(1), sql_str((struct str){NULL, 0})), &changed, err);
	assert_int_equal(changed, 2);
	return rc;
}

static int read_values(struct sql_tx *tx, void *ctx, struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	autoptr(arena) arena = arena_new();

	(void)ctx;
	assert_int_equal(sql_query(tx, "SELECT id, value, bytes, 0.5 FROM t ORDER BY id", SQL_NO_ARGS, &rows, err), 0);
	assert_int_equal(sql_next(rows, err), 1);
	assert_int_equal(sql_col_i64(rows, 0), INT64_MIN);
	assert_true(str_eq(sql_col_text(rows, 1), STR("größe")));
	assert_true(str_eq(sql_col_blob(rows, 2), (struct str){"a\0b", 3}));
	assert_true(sql_col_real(rows, 3) == 0.5);
	assert_int_equal(sql_next(rows, err), 1);
	assert_int_equal(sql_col_i64(rows, 0), 1);
	assert_false(sql_col_is_null(rows, 1));
	assert_string_equal(sql_col_dup(rows, 1, arena), "");
	assert_true(sql_col_is_null(rows, 2));
	assert_null(sql_col_dup(rows, 2, arena));
	assert_int_equal(sql_col_i64(rows, 2), 0);
	assert_int_equal(sql_next(rows, err), 1);
	assert_int_equal(sql_next(rows, err), 0);
	return 0;
}

static void test_values_come_back(void **state)
{
	struct fixture *f = *state;

	must(sql_write(f->sql, insert_values, NULL, &f->err));
	must(sql_read(f->sql, read_values, NULL, &f->err));
}

static int nested_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	autoptr(sql_rows) outer = NULL;
	int64_t *pairs = ctx;
	int rc = sql_query(tx, "SELECT id FROM t", SQL_NO_ARGS, &outer, err);

	while (rc >= 0 && (rc = sql_next(outer, err)) > 0) {
		autoptr(sql_rows) inner = NULL;
		rc = sql_query(tx, "SELECT id FROM t", SQL_NO_ARGS, &inner, err);
		while (rc >= 0 && (rc = sql_next(inner, err)) > 0)
			(*pairs)++;
	}
	return rc;
}

static void test_a_query_inside_itself(void **state)
{
	struct fixture *f = *state;
	int64_t pairs = 0;

	must(statement(f, "INSERT INTO t (id) VALUES (1), (2), (3)"));
	must(sql_read(f->sql, nested_fn, &pairs, &f->err));
	assert_int_equal(pairs, 9);
}

static int insert_text_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct str *text = ctx;

	return sql_exec(tx, "INSERT INTO t (id, value) VALUES (1, $1)", SQL_ARGS(sql_str(*text)), NULL, err);
}

static void test_text_is_utf8_without_nul(void **state)
{
	struct fixture *f = *state;
	static const struct str wrong[] = {{"a\0b", 3}, {"\xff", 1}, {"\xed\xa0\x80", 3}, {"gr\xc3", 3}};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct str text = wrong[i];
		must_be(sql_write(f->sql, insert_text_fn, &text, &f->err), -ERR_INVALID_FIELD);
		assert_non_null(strstr(f->err.msg, "not UTF-8"));
	}
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), 0);
}

/* --- the lock clause --- */

static void test_a_select_may_lock(void **state)
{
	struct fixture *f = *state;
	static const char *const locking[] = {
		"SELECT id FROM t FOR UPDATE",
		"SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
		"SELECT a.id FROM t a JOIN t b ON a.id = b.id FOR UPDATE OF a",
		"SELECT a.id FROM t a JOIN t b ON a.id = b.id FOR UPDATE OF a SKIP LOCKED",
	};

	must(statement(f, "INSERT INTO t (id, value) VALUES (7, ' FOR UPDATE')"));
	for (size_t round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_LEN(locking); i++) {
			struct number n = {.text = locking[i]};
			must(sql_write(f->sql, number_fn, &n, &f->err));
			assert_int_equal(n.value, 7);
		}
	}
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t WHERE value = ' FOR UPDATE'"), 1);
}

/* --- the clock --- */

static int now_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	return sql_now(tx, ctx, err);
}

static int64_t database_now(struct fixture *f)
{
	int64_t now = 0;

	must(sql_read(f->sql, now_fn, &now, &f->err));
	return now;
}

static void test_the_clock_is_near_and_goes_forward(void **state)
{
	struct fixture *f = *state;
	int64_t written = 0;
	int64_t first = database_now(f);

	must(sql_write(f->sql, now_fn, &written, &f->err));
	assert_true(first > clock_unix_ns() - 3600 * NS_PER_S && first < clock_unix_ns() + 3600 * NS_PER_S);
	assert_true(written > first);
	assert_true(database_now(f) > written);
}

/* What a leap of this machine's clock looks like to the next process of the same boot. */
static void test_sqlites_clock_does_not_leap_with_the_wall(void **state)
{
	struct fixture *f = *state;
	static const int64_t leaps[] = {3600 * NS_PER_S, -3600 * NS_PER_S};

	for (size_t i = 0; i < ARRAY_LEN(leaps); i++) {
		autofree char *leap = xasprintf("UPDATE store_clock SET base = base - %lld", (long long)leaps[i]);
		must(statement(f, leap));
		sql_free(TAKE(f->sql));
		int64_t wall = clock_unix_ns();
		must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err));
		int64_t off = database_now(f) - (wall - (i == 0 ? leaps[0] : 0));
		assert_true(off > -60 * NS_PER_S && off < 60 * NS_PER_S);
	}
	/* Another boot's base means nothing now. */
	must(statement(f, "UPDATE store_clock SET boot_id = 'of another boot', base = 0"));
	sql_free(TAKE(f->sql));
	must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err));
	int64_t off = database_now(f) - clock_unix_ns();
	assert_true(off > -60 * NS_PER_S && off < 60 * NS_PER_S);
	assert_int_equal(number(f, "SELECT COUNT(*) FROM store_clock"), 1);
}

/* --- outcomes --- */

struct insert {
	int64_t id;
	int outcome; /* what the function gives when its INSERT worked */
	int runs;    /* how often it ran */
	struct str bytes;
	sem_t *begun, *gate; /* where not NULL: tells that it runs, and waits */
	const char *text;    /* NULL: a plain INSERT */
	int64_t seen_by_reader;
	struct sql *sql; /* where not NULL: counts the rows that others see meanwhile */
	int rc;
	struct err err;
	bool done;
};

static int insert_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct insert *in = ctx;

	in->runs++;
	if (in->begun != NULL)
		assert_int_equal(sem_post(in->begun), 0);
	if (in->gate != NULL)
		assert_int_equal(sem_wait(in->gate), 0);
	int rc = sql_exec(tx, in->text != NULL ? in->text : "INSERT INTO t (id, bytes) VALUES ($1, $2)",
			  SQL_ARGS(sql_i64(in->id), sql_blob(in->bytes)), NULL, err);
	if (rc == 0 && in->sql != NULL) {
		struct number seen = {.text = "SELECT COUNT(*) FROM t"};
		rc = sql_read(in->sql, number_fn, &seen, err);
		in->seen_by_reader = seen.value;
	}
	if (rc < 0 || in->outcome >= 0)
		return rc < 0 ? rc : in->outcome;
	return err_set(err, (enum err_code) - in->outcome, "the function does not want it");
}

static void test_outcomes(void **state)
{
	struct fixture *f = *state;
	struct insert kept = {.id = 1, .outcome = 7};
	struct insert undone = {.id = 2, .outcome = -ERR_FORBIDDEN};
	struct insert doubled = {.id = 1};

	must_be(sql_write(f->sql, insert_fn, &kept, &f->err), 7);
	must_be(sql_write(f->sql, insert_fn, &undone, &f->err), -ERR_FORBIDDEN);
	assert_string_equal(f->err.msg, "the function does not want it");
	must_be(sql_write(f->sql, insert_fn, &doubled, &f->err), -ERR_CONFLICT);
	assert_int_equal(number(f, "SELECT SUM(id) FROM t"), 1);
}

static int careless_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	(void)ctx;
	int rc = sql_exec(tx, "INSERT INTO t (id) VALUES (2)", SQL_NO_ARGS, NULL, err);
	if (rc == 0)
		rc = sql_exec(tx, "INSERT INTO t (id) VALUES (1)", SQL_NO_ARGS, NULL, err); /* fails */
	return rc < 0 ? 0 : rc;
}

static void test_a_failed_statement_fails_the_function(void **state)
{
	struct fixture *f = *state;

	must(statement(f, "INSERT INTO t (id) VALUES (1)"));
	must_be(sql_write(f->sql, careless_fn, NULL, &f->err), -ERR_CONFLICT);
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), 1);
}

static void test_a_read_may_not_write(void **state)
{
	struct fixture *f = *state;
	struct number insert = {.text = "INSERT INTO t (id) VALUES (1)"};

	assert_true(sql_read(f->sql, statement_fn, &insert, &f->err) < 0);
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), 0);
}

static void test_wrong_sql_is_an_error_that_says_so(void **state)
{
	struct fixture *f = *state;

	must_be(statement(f, "INSERT INTO nowhere (id) VALUES (1)"), -ERR_INTERNAL);
	assert_non_null(strstr(f->err.msg, "nowhere"));
	must(statement(f, "INSERT INTO t (id) VALUES (1)"));
}

/* --- groups --- */

static void on_done(void *ctx, int rc, const struct err *err)
{
	struct insert *in = ctx;

	assert_false(in->done);
	in->done = true;
	in->rc = rc;
	in->err = *err;
}

static void drain_until_done(struct sql_inbox *inbox, const struct insert *in, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		while (!in[i].done) {
			struct pollfd p = {.fd = sql_inbox_fd(inbox), .events = POLLIN};
			assert_int_equal(poll(&p, 1, 60000), 1);
			sql_inbox_drain(inbox);
		}
	}
}

/* Holds the writer in a first write until all of `in` wait, so that they become one group. */
static void write_as_group(struct fixture *f, struct insert *in, size_t count)
{
	sem_t begun;
	sem_t gate;
	autoptr(sql_inbox) inbox = NULL;
	struct insert first = {.id = -1, .begun = &begun, .gate = &gate};

	assert_int_equal(sem_init(&begun, 0, 0), 0);
	assert_int_equal(sem_init(&gate, 0, 0), 0);
	must(sql_inbox_new(&inbox, &f->err));
	must(sql_write_start(f->sql, inbox, insert_fn, on_done, &first, &f->err));
	assert_int_equal(sem_wait(&begun), 0);
	for (size_t i = 0; i < count; i++)
		must(sql_write_start(f->sql, inbox, insert_fn, on_done, &in[i], &f->err));
	assert_int_equal(sem_post(&gate), 0);
	drain_until_done(inbox, &first, 1);
	drain_until_done(inbox, in, count);
	assert_int_equal(first.rc, 0);
	must(statement(f, "DELETE FROM t WHERE id = -1"));
	(void)sem_destroy(&begun);
	(void)sem_destroy(&gate);
}

static void test_writes_that_wait_commit_together(void **state)
{
	struct fixture *f = *state;
	struct insert in[20];

	for (size_t i = 0; i < ARRAY_LEN(in); i++)
		in[i] = (struct insert){.id = (int64_t)i, .sql = f->sql};
	write_as_group(f, in, ARRAY_LEN(in));
	for (size_t i = 0; i < ARRAY_LEN(in); i++) {
		assert_int_equal(in[i].rc, 0);
		assert_int_equal(in[i].runs, 1);
		assert_int_equal(in[i].seen_by_reader, 1); /* the write before the group: none of the group yet */
	}
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), ARRAY_LEN(in));
}

static void test_one_of_a_group_is_undone_alone(void **state)
{
	struct fixture *f = *state;
	struct insert in[] = {{.id = 1},
			      {.id = 2, .outcome = -ERR_FORBIDDEN},
			      {.id = 3},
			      {.id = 1, .runs = 0}, /* the key is taken */
			      {.id = 4, .outcome = 5}};

	write_as_group(f, in, ARRAY_LEN(in));
	assert_int_equal(in[0].rc, 0);
	assert_int_equal(in[1].rc, -ERR_FORBIDDEN);
	assert_int_equal(in[2].rc, 0);
	assert_int_equal(in[3].rc, -ERR_CONFLICT);
	assert_int_equal(in[4].rc, 5);
	for (size_t i = 0; i < ARRAY_LEN(in); i++)
		assert_int_equal(in[i].runs, 1);
	assert_int_equal(number(f, "SELECT SUM(id) FROM t"), 8);
}

static void check_lost_group(struct fixture *f, struct insert in[3], int wanted)
{
	write_as_group(f, in, 3);
	assert_int_equal(in[0].rc, 0);
	assert_int_equal(in[1].rc, wanted);
	assert_int_equal(in[2].rc, 0);
	assert_int_equal(in[0].runs, 2); /* the whole group was lost, and run again one by one */
	assert_int_equal(in[1].runs, 2);
	assert_int_equal(in[2].runs, 1);
	assert_int_equal(number(f, "SELECT SUM(id) FROM t"), 4);
}

static void test_a_full_database_fails_only_what_does_not_fit(void **state)
{
	struct fixture *f = *state;
	autofree char *big = xcalloc(1, 1 << 20);
	struct insert in[] = {{.id = 1}, {.id = 2, .bytes = {big, 1 << 20}}, {.id = 3}};
	struct insert again = {.id = 2, .bytes = {big, 1 << 20}};

	must(statement(f, "PRAGMA max_page_count = 50")); /* of the writer's connection */
	check_lost_group(f, in, -ERR_DISK_FULL);
	must_be(sql_write(f->sql, insert_fn, &again, &f->err), -ERR_DISK_FULL);
	must(statement(f, "PRAGMA max_page_count = 100000"));
	must(sql_write(f->sql, insert_fn, &again, &f->err));
	assert_int_equal(number(f, "SELECT SUM(id) FROM t"), 6);
}

static void test_or_rollback_fails_only_its_own(void **state)
{
	struct fixture *f = *state;
	struct insert in[] = {
		{.id = 1}, {.id = 1, .text = "INSERT OR ROLLBACK INTO t (id, bytes) VALUES ($1, $2)"}, {.id = 3}};

	check_lost_group(f, in, -ERR_CONFLICT);
}

static void test_an_overloaded_writer_says_so(void **state)
{
	struct fixture *f = *state;
	enum { MANY = 10000 };
	sem_t begun;
	sem_t gate;
	autoptr(sql_inbox) inbox = NULL;
	autofree struct insert *in = xcalloc(MANY, sizeof(*in));
	struct insert first = {.id = -1, .begun = &begun, .gate = &gate};
	size_t accepted = 0;
	int rc = 0;

	assert_int_equal(sem_init(&begun, 0, 0), 0);
	assert_int_equal(sem_init(&gate, 0, 0), 0);
	must(sql_inbox_new(&inbox, &f->err));
	must(sql_write_start(f->sql, inbox, insert_fn, on_done, &first, &f->err));
	assert_int_equal(sem_wait(&begun), 0);
	while (rc == 0 && accepted < MANY) {
		in[accepted].id = (int64_t)accepted;
		rc = sql_write_start(f->sql, inbox, insert_fn, on_done, &in[accepted], &f->err);
		accepted += rc == 0;
	}
	assert_int_equal(rc, -ERR_UNAVAILABLE);
	assert_int_equal(sem_post(&gate), 0);
	drain_until_done(inbox, in, accepted);
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), accepted + 1);
	assert_false(in[accepted].done);
	(void)sem_destroy(&begun);
	(void)sem_destroy(&gate);
}

/* --- many at once --- */

enum { WRITERS = 6, WRITES = 150, ACCOUNTS = 10 };

/* Moves one from account to account: the sum stays. */
static int transfer_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const int64_t *turn = ctx;
	int rc = sql_exec(tx, "UPDATE account SET n = n - 1 WHERE id = $1", SQL_ARGS(sql_i64(*turn % ACCOUNTS)), NULL,
			  err);

	if (rc == 0)
		rc = sql_exec(tx, "UPDATE account SET n = n + 1, turns = turns + 1 WHERE id = $1",
			      SQL_ARGS(sql_i64((*turn + 1) % ACCOUNTS)), NULL, err);
	return rc;
}

struct worker {
	struct sql *sql;
	pthread_t thread;
	int64_t seed;
	int failures;
};

static void *transfer_main(void *arg)
{
	struct worker *w = arg;

	for (int64_t i = 0; i < WRITES; i++) {
		struct err err = {0};
		int64_t turn = w->seed + i;
		w->failures += sql_write(w->sql, transfer_fn, &turn, &err) != 0;
	}
	return NULL;
}

static int sum_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct number a = {.text = "SELECT SUM(n) FROM account"};
	struct number b = {.text = "SELECT SUM(turns) FROM account"};
	struct number c = {.text = "SELECT SUM(turns) FROM account WHERE id >= 0"};
	int *wrong = ctx;
	int rc = number_fn(tx, &a, err);

	if (rc == 0)
		rc = number_fn(tx, &b, err);
	if (rc == 0)
		rc = number_fn(tx, &c, err);
	*wrong += a.value != 0 || b.value != c.value; /* one state of the database throughout */
	return rc;
}

static void *sum_main(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < WRITES; i++) {
		struct err err = {0};
		w->failures += sql_read(w->sql, sum_fn, &w->failures, &err) != 0;
	}
	return NULL;
}

static void test_many_threads_write_and_read(void **state)
{
	struct fixture *f = *state;
	struct worker workers[WRITERS * 2];

	must(statement(f, "CREATE TABLE account (id BIGINT PRIMARY KEY, n BIGINT, turns BIGINT)"));
	for (int i = 0; i < ACCOUNTS; i++) {
		autofree char *text = xasprintf("INSERT INTO account VALUES (%d, 0, 0)", i);
		must(statement(f, text));
	}
	for (size_t i = 0; i < ARRAY_LEN(workers); i++) {
		workers[i] = (struct worker){.sql = f->sql, .seed = (int64_t)i};
		assert_int_equal(
			pthread_create(&workers[i].thread, NULL, i % 2 == 0 ? transfer_main : sum_main, &workers[i]),
			0);
	}
	for (size_t i = 0; i < ARRAY_LEN(workers); i++) {
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
		assert_int_equal(workers[i].failures, 0);
	}
	assert_int_equal(number(f, "SELECT SUM(turns) FROM account"), WRITERS * WRITES);
	assert_int_equal(number(f, "SELECT SUM(n) FROM account"), 0);
}

static int read_in_read(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct number n = {.text = "SELECT 1"};

	(void)tx;
	return sql_read(ctx, number_fn, &n, err);
}

static void test_readers_are_bounded(void **state)
{
	struct fixture *f = *state;
	autoptr(sql) one = NULL;

	must(sql_open(&(struct sql_opts){.dsn = f->dsn, .connections = 1, .timeout_ns = 200 * NS_PER_MS}, &one,
		      &f->err));
	must_be(sql_read(one, read_in_read, one, &f->err), -ERR_UNAVAILABLE);
	must_be(sql_read(f->sql, read_in_read, f->sql, &f->err), 0);
}

/* --- life of the file --- */

static off_t size_of(struct fixture *f, const char *name)
{
	autofree char *path = xasprintf("%s/%s", f->folder, name);
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : -1;
}

static void test_stopping_finishes_what_was_accepted(void **state)
{
	struct fixture *f = *state;
	autoptr(sql_inbox) inbox = NULL;
	struct insert in[300];

	must(sql_inbox_new(&inbox, &f->err));
	for (size_t i = 0; i < ARRAY_LEN(in); i++) {
		in[i] = (struct insert){.id = (int64_t)i};
		must(sql_write_start(f->sql, inbox, insert_fn, on_done, &in[i], &f->err));
	}
	sql_free(TAKE(f->sql));
	sql_inbox_drain(inbox);
	for (size_t i = 0; i < ARRAY_LEN(in); i++)
		assert_true(in[i].done && in[i].rc == 0);
	if (test_postgresql() == NULL)
		assert_int_equal(size_of(f, "test.db-wal"), -1);
	must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err));
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), ARRAY_LEN(in));
}

static void test_what_was_answered_survives_a_kill(void **state)
{
	struct fixture *f = *state;

	sql_free(TAKE(f->sql)); /* a fork does not take threads along */
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct sql *sql = NULL;
		struct err err;
		struct insert in = {.id = 1};
		bool ok = sql_open(&(struct sql_opts){.dsn = f->dsn}, &sql, &err) == 0 &&
			  sql_write(sql, insert_fn, &in, &err) == 0;
		_exit(ok ? 0 : 1);
	}
	int status = -1;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	if (test_postgresql() == NULL)
		assert_true(size_of(f, "test.db-wal") > 0);
	must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err));
	assert_int_equal(number(f, "SELECT COUNT(*) FROM t"), 1);
}

static void test_the_wal_is_bounded(void **state)
{
	struct fixture *f = *state;
	autofree char *bytes = xcalloc(1, 1 << 20);
	off_t most = 0;

	for (int64_t i = 0; i < 150; i++) {
		struct insert in = {.id = i, .bytes = {bytes, 1 << 20}};
		must(sql_write(f->sql, insert_fn, &in, &f->err));
		off_t now = size_of(f, "test.db-wal");
		most = now > most ? now : most;
	}
	assert_true(size_of(f, "test.db") + most > 150 << 20);
	assert_true(most < 100 << 20);
}

static void test_nobody_else_may_read_the_files(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"test.db", "test.db-wal", "test.db-shm"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		autofree char *path = xasprintf("%s/%s", f->folder, names[i]);
		struct stat st;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
}

static void test_what_cannot_be_opened(void **state)
{
	struct fixture *f = *state;
	autofree char *nowhere = xasprintf("sqlite:///%s/no/such/folder.db", f->folder);
	autofree char *folder = xasprintf("sqlite:///%s", f->folder);
	autofree char *text = xasprintf("%s/text", f->folder);
	struct sql *sql = NULL;

	must_be(sql_open(&(struct sql_opts){.dsn = nowhere}, &sql, &f->err), -ERR_IO);
	assert_non_null(strstr(f->err.msg, "no/such/folder.db"));
	must_be(sql_open(&(struct sql_opts){.dsn = folder}, &sql, &f->err), -ERR_IO);
	must(file_write_atomic(AT_FDCWD, text, STR("this is no database, and it is long enough to be looked at"), 0600,
			       &f->err));
	must_be(sql_open(&(struct sql_opts){.dsn = text}, &sql, &f->err), -ERR_IO);
	assert_null(sql);
}

/* A real full disk, of a tmpfs of 2 MB in a mount namespace of its own. */
static int full_disk(struct fixture *f)
{
	autofree char *dsn = xasprintf("sqlite:///%s/disk/full.db", f->folder);
	autofree char *filler = xasprintf("%s/disk/filler", f->folder);
	autofree char *bytes = xcalloc(1, 1 << 16);
	struct sql *sql = NULL;
	int rc = 0;

	must(sql_open(&(struct sql_opts){.dsn = dsn}, &sql, &f->err));
	must(sql_write(sql, create_fn, NULL, &f->err));
	int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, bytes, 1 << 16) > 0)
		continue;
	int64_t id = 0;
	while (rc == 0 && id < 100) {
		struct insert in = {.id = id, .bytes = {bytes, 1 << 16}};
		rc = sql_write(sql, insert_fn, &in, &f->err);
		id += rc == 0;
	}
	must_be(rc, -ERR_DISK_FULL);
	assert_int_equal(ftruncate(fd, 0), 0);
	struct insert in = {.id = id, .bytes = {bytes, 1 << 16}};
	must(sql_write(sql, insert_fn, &in, &f->err));
	struct number rows = {.text = "SELECT COUNT(*) FROM t"};
	must(sql_read(sql, number_fn, &rows, &f->err));
	assert_int_equal(rows.value, id + 1);
	(void)close(fd);
	sql_free(sql);
	return 0;
}

static void test_a_full_disk_is_told_and_got_over(void **state)
{
	struct fixture *f = *state;
	autofree char *disk = xasprintf("%s/disk", f->folder);

	assert_int_equal(mkdir(disk, 0700), 0);
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("nimbus-test", disk, "tmpfs", 0, "size=2m") != 0) {
		print_message("skipped: mounting a small file system needs root\n");
		skip();
	}
	(void)full_disk(f);
	assert_int_equal(umount(disk), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* What is deleted is gone from the file, also where it filled pages of its own: sealed secrets lie there. */
static void test_what_is_deleted_leaves_the_file(void **state)
{
	struct fixture *f = *state;
	autofree char *path = xasprintf("%s/test.db", f->folder);
	autovar(buf) before = {0};
	autovar(buf) after = {0};

	must(statement(f, "INSERT INTO t VALUES (1, replace(hex(zeroblob(30000)), '0', 'sealed!'), NULL)"));
	sql_free(TAKE(f->sql)); /* the last one to go copies the log into the file, and removes it */
	must(file_read(AT_FDCWD, path, 8 << 20, &before, &f->err));
	assert_non_null(memmem(before.data, before.len, "sealed!", 7));
	must(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err));
	must(statement(f, "DELETE FROM t WHERE id = 1"));
	sql_free(TAKE(f->sql));
	must(file_read(AT_FDCWD, path, 8 << 20, &after, &f->err));
	assert_null(memmem(after.data, after.len, "sealed!", 7));
}

static const struct CMUnitTest on_both[] = {
	TEST(test_values_come_back),
	TEST(test_a_query_inside_itself),
	TEST(test_text_is_utf8_without_nul),
	TEST(test_a_select_may_lock),
	TEST(test_the_clock_is_near_and_goes_forward),
	TEST(test_outcomes),
	TEST(test_a_failed_statement_fails_the_function),
	TEST(test_a_read_may_not_write),
	TEST(test_wrong_sql_is_an_error_that_says_so),
	TEST(test_an_overloaded_writer_says_so),
	TEST(test_many_threads_write_and_read),
	TEST(test_readers_are_bounded),
	TEST(test_stopping_finishes_what_was_accepted),
	TEST(test_what_was_answered_survives_a_kill),
};

/* Its writer's groups, its files. PostgreSQL's own are in sql_pg_test.c. */
static const struct CMUnitTest on_sqlite[] = {
	TEST(test_sqlites_clock_does_not_leap_with_the_wall),
	TEST(test_what_is_deleted_leaves_the_file),
	TEST(test_writes_that_wait_commit_together),
	TEST(test_one_of_a_group_is_undone_alone),
	TEST(test_a_full_database_fails_only_what_does_not_fit),
	TEST(test_or_rollback_fails_only_its_own),
	TEST(test_the_wal_is_bounded),
	TEST(test_nobody_else_may_read_the_files),
	TEST(test_what_cannot_be_opened),
	TEST(test_a_full_disk_is_told_and_got_over),
};

int main(void)
{
	int failed = cmocka_run_group_tests(on_both, NULL, NULL);

	return test_postgresql() != NULL ? failed : failed + cmocka_run_group_tests(on_sqlite, NULL, NULL);
}
