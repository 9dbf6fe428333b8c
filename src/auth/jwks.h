/*
 * The public keys of the control plane, as the other services see them: fetched from its /.well-known/jwks.json, kept
 * on disk, fetched again every minute and when a token names an unknown key, at a limited rate. A thread of its own
 * fetches; who asks waits a moment at most. Safe in threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/jwt.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct jwks;

struct jwks_opts {
	const char *url;
	const char *path;	/* where the last good answer is kept; NULL: nowhere */
	int64_t min_refresh_ns; /* between two fetches; 0: 5 s */
	int64_t max_age_ns;	/* fetched again at the latest then; 0: 60 s */
	int64_t timeout_ns;	/* of one fetch; 0: 2 s */
	int64_t wait_ns;	/* how long jwks_find() waits for a fetch; 0: 100 ms */
};

/* Reads the copy on disk where there is one, and begins to fetch. */
int jwks_new(const struct jwks_opts *opts, struct jwks **ret, struct err *err) must_check;
void jwks_free(struct jwks *j);
AUTOPTR_DEFINE(jwks)

/* Borrowed; lives as long as `j`. ERR_UNAUTH: no such key; ERR_UNAVAILABLE: unknown, and the keys could not be
 * fetched, or not yet. One thread at a time waits for a fetch, the others are answered at once.
 * ret_until_at (may be NULL): when the key is over; 0: no end is set. */
int jwks_find(struct jwks *j, const char *kid, int64_t now_at, const struct jwt_key **ret, int64_t *ret_until_at,
	      struct err *err) must_check;
/* Keys are known, or the control plane has been away for so long (5 s) that nobody should wait for it. */
bool jwks_is_settled(const struct jwks *j);
/* Grows whenever a fetch changed what is listed. */
uint64_t jwks_generation(const struct jwks *j);

/* --- the document itself, for tests and fuzzing --- */

struct jwks_set {
	struct jwt_key **keys;
	int64_t *until_at; /* of each, Unix ns; 0: no end */
	size_t count;
};
/* Keys of other kinds and uses are left out; a private one is refused. */
int jwks_parse(struct str document, struct jwks_set *ret, struct err *err) must_check;
void jwks_set_fini(struct jwks_set *s);
AUTOVAR_DEFINE(jwks_set)
