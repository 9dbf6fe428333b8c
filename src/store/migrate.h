/*
 * Migrations: forward only, numbered files in store/migrations/SET/NNNN_name.sql, put into the program at build time.
 * Table schema_migrations of each database says which have run, schema_steps who made them, and which of them ended the
 * life of older programs: a migration only adds (tables, indexes, columns that are nullable or have a default), so that
 * a program of the schema before goes on beside it, until one comes that takes away, a release later.
 */
#pragma once

#include <stddef.h>

#include "base/arena.h"
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

/* The newest version of the set that this program knows. */
int64_t sql_schema_newest(const char *set);

struct schema_step {
	int64_t version;
	const char *name;
	int64_t applied_at;  /* Unix ns; 0: pending */
	const char *program; /* the version of the nimbus that made it; NULL: not known */
	const char *host;    /* where that ran */
};

struct schema_status {
	int64_t version; /* of the database; 0: nothing there yet */
	int64_t newest;	 /* that this program knows */
	int64_t oldest;	 /* programs that know less cannot work with it */
	size_t pending;
	struct schema_step *steps; /* those made, then those pending */
	size_t step_count;
};
/* Changes nothing. Text lies in the arena. */
int sql_schema_status(struct sql *sql, const char *set, struct arena *arena, struct schema_status *ret, struct err *err)
	must_check;
