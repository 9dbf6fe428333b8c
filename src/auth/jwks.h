/*
 * The public keys of the control plane, as the other services see them: fetched from its /.well-known/jwks.json, kept
 * on disk, fetched again when a token names an unknown key, at a limited rate. Safe in threads.
 */
#pragma once

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
	int64_t timeout_ns;	/* of one fetch; 0: 1 s */
};

/* Reads the copy on disk where there is one; fetches nothing yet. */
int jwks_new(const struct jwks_opts *opts, struct jwks **ret, struct err *err) must_check;
void jwks_free(struct jwks *j);
AUTOPTR_DEFINE(jwks)

/* Borrowed; lives as long as `j`. ERR_UNAUTH: no such key; ERR_UNAVAILABLE: unknown, and the keys could not be
 * fetched. May wait for one fetch. */
int jwks_find(struct jwks *j, const char *kid, const struct jwt_key **ret, struct err *err) must_check;

/* --- the document itself, for tests and fuzzing --- */

struct jwks_set {
	struct jwt_key **keys;
	size_t count;
};
/* Keys of other kinds and uses are left out; a private one is refused. */
int jwks_parse(struct str document, struct jwks_set *ret, struct err *err) must_check;
void jwks_set_fini(struct jwks_set *s);
AUTOVAR_DEFINE(jwks_set)
