/*
 * The control plane's signing keys: one JWK file (0600) per key in a folder of their own, named KID.jwk. The newest
 * signs; all verify. The first key is made at the first start.
 */
#pragma once

#include <stddef.h>

#include "auth/jwt.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct keyring;

/* Refuses a file that others may read, whose name is not its key's thumbprint, or whose halves do not match. The
 * message names the file. */
int keyring_open(const char *folder, struct keyring **ret, struct err *err) must_check;
void keyring_free(struct keyring *k);
AUTOPTR_DEFINE(keyring)

/* The key that signs. */
const struct jwt_key *keyring_active(const struct keyring *k);
/* NULL where there is none. */
const struct jwt_key *keyring_find(const struct keyring *k, const char *kid);
/* Appends the JWKS document: {"keys":[...]}. */
void keyring_write_jwks(const struct keyring *k, struct buf *out);
