/*
 * For tests only: an empty database, of the kind that the test runs on. Tests named in a layer's on_postgresql run
 * twice: alone on SQLite, and beside a server of tests/peers/postgresql.py, which sets NIMBUS_TEST_POSTGRESQL.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* cmocka.h wants the headers above. */
#include <cmocka.h>

#include "base/mem.h"
#include "store/sql.h"

/* Fails the test with the message; wants a local `f` with an `err`. */
#define must_be(call, outcome) assert_outcome((call), (outcome), &f->err)
#define must(call) must_be((call), 0)

unused_fn static void assert_outcome(int rc, int wanted, const struct err *err)
{
	if (rc != wanted)
		fail_msg("gave %d instead of %d: %s", rc, wanted, rc < 0 ? err->msg : "");
}

/* NULL: on SQLite. */
unused_fn static const char *test_postgresql(void)
{
	return getenv("NIMBUS_TEST_POSTGRESQL");
}

/* Runs one statement without parameters. */
unused_fn static int test_statement_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const char *const *text = ctx;

	return sql_exec(tx, *text, SQL_NO_ARGS, NULL, err);
}

unused_fn static void test_empty_schema(const char *dsn)
{
	static const char *const texts[] = {"DROP SCHEMA public CASCADE", "CREATE SCHEMA public"};
	struct sql *sql = NULL;
	struct err err = {0};

	assert_outcome(sql_open(&(struct sql_opts){.dsn = dsn, .connections = 1}, &sql, &err), 0, &err);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		const char *text = texts[i];
		assert_outcome(sql_write(sql, test_statement_fn, &text, &err), 0, &err);
	}
	sql_free(sql);
}

/* The address of an empty database: a file in the folder, or the server's, emptied. The caller frees it. */
unused_fn static char *test_database(const char *folder)
{
	const char *dsn = test_postgresql();

	if (dsn == NULL)
		return xasprintf("sqlite:///%s/test.db", folder);
	test_empty_schema(dsn);
	return xstrdup(dsn);
}
