#include "store/dsn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* cmocka.h wants the headers above. */
#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"

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

/* "name=value name=value", as libpq gets them. */
static char *options_of(const struct dsn *dsn)
{
	autovar(buf) out = {0};

	for (size_t i = 0; i < dsn->option_count; i++)
		buf_printf(&out, "%s%s=%s", i == 0 ? "" : " ", dsn->options[i].name, dsn->options[i].value);
	return buf_take(&out);
}

static void test_postgresql_spellings(void **state)
{
	static const struct {
		const char *text, *user, *password, *host, *port, *database, *options;
		bool no_prepare;
		const char *shown;
	} cases[] = {
		{"postgresql://", .options = "", .shown = "postgresql:///"},
		{"postgresql:///db", .database = "db", .options = "", .shown = "postgresql:///db"},
		{"postgres://host/db", .host = "host", .database = "db", .options = "",
		 .shown = "postgresql://host/db"},
		/* The seeds' own. */
		{"postgresql+asyncpg://user:pass@db/nimbus_control", "user", "pass", "db", NULL, "nimbus_control", "",
		 false, "postgresql://user@db/nimbus_control"},
		{"postgresql+asyncpg://localhost/nimbus_agent_state", NULL, NULL, "localhost", NULL,
		 "nimbus_agent_state", "", false, "postgresql://localhost/nimbus_agent_state"},
		{"postgresql+psycopg://user:pass@db/nimbus_cache_metrics", "user", "pass", "db", NULL,
		 "nimbus_cache_metrics", "", false, "postgresql://user@db/nimbus_cache_metrics"},
		{"postgresql+psycopg://localhost/nimbus_docker_cache", NULL, NULL, "localhost", NULL,
		 "nimbus_docker_cache", "", false, "postgresql://localhost/nimbus_docker_cache"},
		{"postgresql+psycopg2://u:p@h:5433/db?sslmode=require", "u", "p", "h", "5433", "db", "sslmode=require",
		 false, "postgresql://u@h:5433/db"},
		{"postgresql://u%40x:p%3A%2F%25@h/db%20name", "u@x", "p:/%", "h", NULL, "db name", "", false,
		 "postgresql://u@x@h/db name"},
		{"postgresql://u:a@b:c@h/db", "u", "a@b:c", "h", NULL, "db", "", false, "postgresql://u@h/db"},
		{"postgresql://u:@[::1]:5432/db", "u", "", "::1", "5432", "db", "", false,
		 "postgresql://u@[::1]:5432/db"},
		{"postgresql://[fe80::1]/db", NULL, NULL, "fe80::1", NULL, "db", "", false,
		 "postgresql://[fe80::1]/db"},
		{"postgresql://%2Frun%2Fpostgresql/db", NULL, NULL, "/run/postgresql", NULL, "db", "", false,
		 "postgresql:///run/postgresql/db"},
		{"postgresql://a:1,[::2],c:3/db?target_session_attrs=read-write", NULL, NULL, "a,::2,c", "1,,3", "db",
		 "target_session_attrs=read-write", false, "postgresql://a:1,[::2],c:3/db"},
		{"postgresql+psycopg2://u:p@/db?host=/run/postgresql&port=5433", "u", "p", "/run/postgresql", "5433",
		 "db", "", false, "postgresql://u@/run/postgresql:5433/db"},
		{"postgresql:///?host=h:7&user=u&password=p%20w&dbname=db", "u", "p w", "h", "7", "db", "", false,
		 "postgresql://u@h:7/db"},
		{"postgresql+asyncpg://h/db?ssl=verify-full&sslrootcert=/a%20b", NULL, NULL, "h", NULL, "db",
		 "sslmode=verify-full sslrootcert=/a b", false, "postgresql://h/db"},
		{"postgresql+asyncpg://h/db?ssl=true&prepared_statement_cache_size=0", NULL, NULL, "h", NULL, "db",
		 "sslmode=require", true, "postgresql://h/db"},
		{"postgresql://h/db?prepare=false&connect_timeout=3", NULL, NULL, "h", NULL, "db", "connect_timeout=3",
		 true, "postgresql://h/db"},
		{"postgresql://h/db?prepare=true&options=-c%20search_path%3Dx", NULL, NULL, "h", NULL, "db",
		 "options=-c search_path=x", false, "postgresql://h/db"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(dsn) dsn = {0};
		struct err err = {0};
		if (dsn_parse(str_c(cases[i].text), &dsn, &err) < 0)
			fail_msg("%s: %s", cases[i].text, err.msg);
		autofree char *options = options_of(&dsn);
		assert_int_equal(dsn.kind, DSN_POSTGRESQL);
		assert_text(dsn.user, cases[i].user);
		assert_text(dsn.host, cases[i].host);
		assert_text(dsn.port, cases[i].port);
		assert_text(dsn.database, cases[i].database);
		assert_text(options, cases[i].options);
		assert_text(dsn.shown, cases[i].shown);
		assert_int_equal(dsn.no_prepare, cases[i].no_prepare);
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
		"postgresql://u:p@h,h2:hunter2/db",
		"postgresql://h/db?hunter2",
		"postgresql://h/db?hunter2=1",
		"postgresql://u:pa?hunter2=x@h/db",
		"postgresql://u:1234/hunter2@h/db",
		"postgresql://u:/hunter2@h/db",
		"postgresql://h/db?password",
		"postgresql://h/db?password=a&password=hunter2",
		"postgresql://h/db?port=hunter2",
		"postgresql://h/db?prepare=hunter2",
		"postgresql://h/db?ssl=hunter2",
		"postgresql://h/db?statement_cache_size=hunter2",
		"postgresql://h/db?sslpassword=hunter2%",
		"postgresql://h/db?sslpassword=hunter2&sslpassword=b",
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
