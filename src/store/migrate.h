/*
 * Migrations: forward only, numbered files in store/migrations/SET/NNNN_name.sql, put into the program at build time.
 * Table schema_migrations of each database says which have run.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "store/sql.h"

struct migration {
	const char *set;
	int64_t version;
	const char *name;
	const char *text;
};

/* Brings the database up to this program's newest version of the set, each step in a transaction of its own. A database
 * that a newer program has written is refused. */
int sql_migrate(struct sql *sql, const char *set, struct err *err) must_check;
/* The same with a table of the caller's: how tests bring their own. Versions of one set ascend from 1. */
int sql_migrate_table(struct sql *sql, const char *set, const struct migration *table, size_t count, struct err *err)
	must_check;
