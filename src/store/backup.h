/*
 * A copy of a SQLite database while others write in it.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* Copies the state of one moment into a new file, durably. ERR_UNAVAILABLE: others did not let it in for timeout_ns. */
int sql_backup(const char *from, const char *to, int64_t timeout_ns, struct err *err) must_check;
