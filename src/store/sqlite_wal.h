/*
 * The checkpoints of a SQLite file: a thread makes them on a connection of its own, so that no commit pays for one.
 * Where it falls behind, the writer waits for it, which bounds the WAL.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "store/sqlite_client.h"

struct sqlite_wal;

int sqlite_wal_new(struct sqlite_file *file, struct sqlite_wal **ret, struct err *err) must_check;
/* Waits for the checkpoint that runs. */
void sqlite_wal_free(struct sqlite_wal *w);
AUTOPTR_DEFINE(sqlite_wal)

/* After a commit, in the writer's thread: how many pages the WAL has. May wait, up to a second. */
void sqlite_wal_grew(struct sqlite_wal *w, int pages);
