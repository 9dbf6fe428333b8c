/*
 * The connections that read a SQLite file: opened one by one as they are needed, up to a number, and kept.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "store/sqlite_client.h"

enum { SQLITE_READERS_MAX = 32 };

struct sqlite_readers;

struct sqlite_readers *sqlite_readers_new(struct sqlite_file *file, unsigned max);
/* All have come back. */
void sqlite_readers_free(struct sqlite_readers *r);

/* What fn returned; ERR_UNAVAILABLE where none came free in time. */
int sqlite_readers_read(struct sqlite_readers *r, sql_fn *fn, void *ctx, struct err *err) must_check;
/* How many read now. */
unsigned sqlite_readers_busy(struct sqlite_readers *r);
