/*
 * Migrations: forward only, numbered files in store/migrations/SET/NNNN_name.sql, put into the program at build time.
 * Table schema_migrations of each database says which have run, schema_contract which of them ended the life of older
 * programs.
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
	int64_t oldest; /* a program that knows only schemas before this one cannot live with it; 0: all can */
};

/* Brings the database up to this program's newest version of the set, each step in a transaction of its own, under a
 * lock: of several programs that start at once each step is made by one. A database that a newer program has written is
 * taken as it is, for migrations only add; one that says it is no longer for programs like this is refused. */
int sql_migrate(struct sql *sql, const char *set, struct err *err) must_check;
/* The same with a table of the caller's: how tests bring their own. Versions of one set ascend from 1. */
int sql_migrate_table(struct sql *sql, const char *set, const struct migration *table, size_t count, struct err *err)
	must_check;
