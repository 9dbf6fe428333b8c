#include "store/migrate.h"

#include <fcntl.h>
#include <pthread.h>

#include "base/file.h"
#include "store/sql_test.h"

static const struct migration table[] = {
	{"fruit", 1, "init", "CREATE TABLE apple (n BIGINT); INSERT INTO apple VALUES (1);"},
	{"fruit", 2, "more", "CREATE TABLE pear (n BIGINT);\nUPDATE apple SET n = n + 10;"},
	{"fruit", 3, "again", "UPDATE apple SET n = n + 100"},
	{"herbs", 1, "init", "CREATE TABLE mint (n BIGINT)"},
};

struct fixture {
	char folder[64];
	char *dsn;
	struct sql *sql;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/nimbus-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	f->dsn = test_database(f->folder);
	assert_int_equal(sql_open(&(struct sql_opts){.dsn = f->dsn}, &f->sql, &f->err), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sql_free(f->sql);
	assert_int_equal(dir_remove(AT_FDCWD, f->folder, &f->err), 0);
	free(f->dsn);
	free(f);
	return 0;
}

static int apples_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	int rc = sql_get_i64(tx, "SELECT n FROM apple", SQL_NO_ARGS, ctx, err);

	return rc < 0 ? rc : 0;
}

static int64_t apples(struct fixture *f)
{
	int64_t n = -1;

	assert_int_equal(sql_read(f->sql, apples_fn, &n, &f->err), 0);
	return n;
}

static void test_each_step_is_made_once(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(sql_migrate_table(f->sql, "fruit", table, 2, &f->err), 0);
	assert_int_equal(apples(f), 11);
	assert_int_equal(sql_migrate_table(f->sql, "fruit", table, 2, &f->err), 0);
	assert_int_equal(apples(f), 11);
	assert_int_equal(sql_migrate_table(f->sql, "fruit", table, 4, &f->err), 0);
	assert_int_equal(apples(f), 111);
	assert_int_equal(sql_migrate_table(f->sql, "herbs", table, 4, &f->err), 0);
}

/* --- what is told of it --- */

static struct {
	int64_t steps[8];
	size_t count;
	unsigned ends;
} told;

static void tell(const char *set, int64_t version, const char *name)
{
	assert_string_equal(set, "fruit");
	if (name == NULL) {
		told.ends++;
		return;
	}
	assert_int_equal(told.ends, 0);
	assert_string_equal(name, table[version - 1].name);
	/* A step may have to be begun again. */
	if (told.count == 0 || told.steps[told.count - 1] != version)
		told.steps[told.count++] = version;
}

static void test_each_step_is_told_before_it_is_made(void **state)
{
	struct fixture *f = *state;
	autoptr(sql) sql = NULL;

	must(sql_open(&(struct sql_opts){.dsn = f->dsn, .migrating = tell}, &sql, &f->err));
	memset(&told, 0, sizeof(told));
	assert_int_equal(sql_migrate_table(sql, "fruit", table, 2, &f->err), 0);
	assert_int_equal(told.count, 2);
	assert_int_equal(told.steps[0], 1);
	assert_int_equal(told.steps[1], 2);
	assert_int_equal(told.ends, 1);
	/* Nothing to do is nothing to tell. */
	assert_int_equal(sql_migrate_table(sql, "fruit", table, 2, &f->err), 0);
	assert_int_equal(told.count, 2);
	assert_int_equal(told.ends, 1);
	/* Also a step that fails has been begun. */
	told.count = told.ends = 0;
	struct migration broken[] = {table[0], table[1], {"fruit", 3, "again", "UPDATE nothing SET n = 1"}};
	broken[2].name = table[2].name;
	assert_true(sql_migrate_table(sql, "fruit", broken, 3, &f->err) < 0);
	assert_int_equal(told.count, 1);
	assert_int_equal(told.steps[0], 3);
	assert_int_equal(told.ends, 0);
	f->err = (struct err){0};
}

static void test_a_newer_database_is_taken_as_it_is(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(sql_migrate_table(f->sql, "fruit", table, 3, &f->err), 0);
	assert_int_equal(sql_migrate_table(f->sql, "fruit", table, 2, &f->err), 0);
	assert_int_equal(apples(f), 111);
}

static void test_a_contract_refuses_older_programs(void **state)
{
	struct fixture *f = *state;
	const struct migration contracted[] = {
		table[0], table[1], {"fruit", 3, "contract", "DROP TABLE pear", 2}, {"fruit", 4, "more", "SELECT 1"}};

	assert_int_equal(sql_migrate_table(f->sql, "fruit", contracted, 4, &f->err), 0);
	assert_int_equal(sql_migrate_table(f->sql, "fruit", table, 2, &f->err), 0);
	assert_int_equal(sql_migrate_table(f->sql, "fruit", table, 1, &f->err), -ERR_CONFLICT);
	assert_non_null(strstr(f->err.msg, "schema 4, for programs that know 2 at least; this one knows 1"));
}

static void test_status_looks_and_changes_nothing(void **state)
{
	struct fixture *f = *state;
	autoptr(arena) arena = arena_new();
	struct schema_status status = {0};

	must(sql_schema_status(f->sql, "control", arena, &status, &f->err));
	assert_int_equal(status.version, 0);
	assert_true(status.newest >= 3);
	assert_int_equal(status.pending, status.newest);
	assert_int_equal(status.step_count, status.newest);
	assert_string_equal(status.steps[0].name, "init");
	assert_int_equal(status.steps[0].applied_at, 0);
	must(sql_migrate(f->sql, "control", &f->err));
	must(sql_schema_status(f->sql, "control", arena, &status, &f->err));
	assert_int_equal(status.version, status.newest);
	assert_int_equal(status.pending, 0);
	assert_true(status.steps[0].applied_at > 0);
	assert_string_equal(status.steps[0].program, NIMBUS_VERSION);
}

struct starter {
	pthread_t thread;
	const char *dsn;
	int rc;
	struct err err;
};

static void *start_main(void *arg)
{
	struct starter *s = arg;
	struct sql *sql = NULL;

	s->rc = sql_open(&(struct sql_opts){.dsn = s->dsn, .connections = 1}, &sql, &s->err);
	if (s->rc == 0)
		s->rc = sql_migrate_table(sql, "fruit", table, 3, &s->err);
	sql_free(sql);
	return NULL;
}

static void test_of_many_that_start_at_once_one_makes_each_step(void **state)
{
	struct fixture *f = *state;
	struct starter starters[6];

	for (size_t i = 0; i < ARRAY_LEN(starters); i++) {
		starters[i] = (struct starter){.dsn = f->dsn};
		assert_int_equal(pthread_create(&starters[i].thread, NULL, start_main, &starters[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(starters); i++) {
		assert_int_equal(pthread_join(starters[i].thread, NULL), 0);
		assert_outcome(starters[i].rc, 0, &starters[i].err);
	}
	assert_int_equal(apples(f), 111);
}

static void test_a_failing_step_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	const struct migration broken[] = {
		table[0],
		{"fruit", 2, "broken", "UPDATE apple SET n = 5; CREATE TABLE apple (n BIGINT);"},
	};

	assert_int_equal(sql_migrate_table(f->sql, "fruit", broken, 2, &f->err), -ERR_INTERNAL);
	assert_non_null(strstr(f->err.msg, "fruit/0002_broken"));
	assert_int_equal(apples(f), 1);
	assert_int_equal(sql_migrate_table(f->sql, "fruit", table, 2, &f->err), 0);
	assert_int_equal(apples(f), 11);
}

static void test_the_programs_own(void **state)
{
	struct fixture *f = *state;

	must(sql_migrate(f->sql, "control", &f->err));
	must(sql_migrate(f->sql, "control", &f->err));
	must(sql_migrate(f->sql, "agent", &f->err));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_each_step_is_made_once),
		TEST(test_each_step_is_told_before_it_is_made),
		TEST(test_a_newer_database_is_taken_as_it_is),
		TEST(test_a_contract_refuses_older_programs),
		TEST(test_status_looks_and_changes_nothing),
		TEST(test_of_many_that_start_at_once_one_makes_each_step),
		TEST(test_a_failing_step_leaves_nothing),
		TEST(test_the_programs_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
