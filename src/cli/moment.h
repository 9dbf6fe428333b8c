/*
 * A moment as people give it: --since 10m, --since 2026-11-21T12:40:00Z.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

/* Adds NAME=TIME to a query; nothing where `text` is NULL. ERR_INVALID, which names --NAME. */
int moment_add(struct buf *query, const char *name, const char *text, struct err *err) must_check;
