/*
 * The control planes that share the database, and their keys: so that one which cannot read the others' tokens is
 * noticed.
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"

/* One that has said nothing for so long is gone. */
#define PLANE_GONE_NS (30 * INT64_C(1000000000))

enum plane_key_use { PLANE_SIGNS, PLANE_SEALS };
struct plane_key {
	const char *plane;
	enum plane_key_use use;
	const char *fingerprint;
};

/* Which key this plane uses now, and that it is here. Forgets those that are long gone. */
int planes_db_say(const struct control_db *db, enum plane_key_use use, const char *fingerprint, struct err *err)
	must_check;
int planes_db_leave(const struct control_db *db, struct err *err) must_check;
/* What all others use that are here. */
int planes_db_others(const struct control_db *db, struct arena *arena, struct plane_key **ret, size_t *ret_count,
		     struct err *err) must_check;
