#include "store/dsn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* cmocka.h wants the headers above. */
#include <cmocka.h>

static void assert_text(const char *got, const char *wanted)
{
	if (wanted == NULL)
		assert_null(got);
	else
		assert_string_equal(got, wanted);
}

static void test_sqlite_spellings(void **state)
{
	static const struct {
		const char *text, *path;
	} cases[] = {
		{"sqlite:///relative.db", "relative.db"},
		{"sqlite:///some/where.db", "some/where.db"},
		{"sqlite:////var/lib/nimbus/control.db", "/var/lib/nimbus/control.db"},
		{"sqlite+aiosqlite:////tmp/x.db", "/tmp/x.db"},
		{"sqlite:///with%20space%25.db", "with space%.db"},
		{"/var/lib/x.db", "/var/lib/x.db"},
		{"x.db", "x.db"},
		{"./100%.db", "./100%.db"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(dsn) dsn = {0};
		struct err err = {0};
		if (dsn_parse(str_c(cases[i].text), &dsn, &err) < 0)
			fail_msg("%s: %s", cases[i].text, err.msg);
		assert_int_equal(dsn.kind, DSN_SQLITE);
		assert_string_equal(dsn.path, cases[i].path);
	}
}

static void test_postgresql_spellings(void **state)
{
	static const struct {
		const char *text, *user, *password, *host;
		int64_t port;
		const char *database, *options, *shown;
	} cases[] = {
		{"postgresql://", NULL, NULL, NULL, 0, NULL, NULL, "postgresql:///"},
		{"postgresql:///db", NULL, NULL, NULL, 0, "db", NULL, "postgresql:///db"},
		{"postgres://host/db", NULL, NULL, "host", 0, "db", NULL, "postgresql://host/db"},
		{"postgresql+asyncpg://u:p@h:5433/db?sslmode=require", "u", "p", "h", 5433, "db", "sslmode=require",
		 "postgresql://u@h:5433/db"},
		{"postgresql://u%40x:p%3A%2F%25@h/db%20name", "u@x", "p:/%", "h", 0, "db name", NULL,
		 "postgresql://u@x@h/db name"},
		{"postgresql://u:a@b:c@h/db", "u", "a@b:c", "h", 0, "db", NULL, "postgresql://u@h/db"},
		{"postgresql://u:@[::1]:5432/db", "u", "", "::1", 5432, "db", NULL, "postgresql://u@::1:5432/db"},
		{"postgresql://[fe80::1]/db", NULL, NULL, "fe80::1", 0, "db", NULL, "postgresql://fe80::1/db"},
		{"postgresql://%2Frun%2Fpostgresql/db", NULL, NULL, "/run/postgresql", 0, "db", NULL,
		 "postgresql:///run/postgresql/db"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(dsn) dsn = {0};
		struct err err = {0};
		if (dsn_parse(str_c(cases[i].text), &dsn, &err) < 0)
			fail_msg("%s: %s", cases[i].text, err.msg);
		assert_int_equal(dsn.kind, DSN_POSTGRESQL);
		assert_text(dsn.user, cases[i].user);
		assert_text(dsn.host, cases[i].host);
		assert_int_equal(dsn.port, cases[i].port);
		assert_text(dsn.database, cases[i].database);
		assert_text(dsn.options, cases[i].options);
		assert_text(dsn.shown, cases[i].shown);
		assert_int_equal(dsn.password != NULL, cases[i].password != NULL);
		if (dsn.password != NULL)
			assert_true(secret_equal(dsn.password, str_c(cases[i].password)));
	}
}

static void test_refused_without_saying_what_was_written(void **state)
{
	static const char *const cases[] = {
		"",
		"sqlite://",
		"sqlite:///",
		"sqlite://hunter2/path",
		"sqlite:///:memory:",
		":memory:",
		"sqlite:///x?password=hunter2",
		"sqlite:hunter2",
		"postgresql:u:hunter2@h/db",
		"mysql://u:hunter2@h/db",
		"postgresql2://u:hunter2@h/db",
		"postgresql://u:hunter2@h:port/db",
		"postgresql://u:hunter2@h:0/db",
		"postgresql://u:hunter2@h:65536/db",
		"postgresql://u:hunter2%@h/db",
		"postgresql://u:hunter2%4@h/db",
		"postgresql://u:hunter2%zz@h/db",
		"postgresql://u:hunter2%00@h/db",
		"postgresql://u:hunter2@[::1/db",
		"postgresql://u:hunter2@[::1]x/db",
		"postgresql://u:hunter2@h/db%0a",
		"host=h password=hunter2 dbname=db",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(dsn) dsn = {0};
		struct err err = {0};
		if (dsn_parse(str_c(cases[i]), &dsn, &err) != -ERR_INVALID_FIELD)
			fail_msg("'%s' was taken", cases[i]);
		assert_null(strstr(err.msg, "hunter2"));
		assert_null(dsn.shown);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sqlite_spellings),
		cmocka_unit_test(test_postgresql_spellings),
		cmocka_unit_test(test_refused_without_saying_what_was_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
