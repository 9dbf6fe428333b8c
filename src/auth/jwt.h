/*
 * JSON Web Tokens and the keys that sign them: the wrapper of cjose. The library follows the algorithm that a token's
 * header names, so each key here has exactly one, and a header that names another is refused before the library
 * sees the token. ES256 (RFC 7518, section 3.4) and HS256 (3.2); "none" does not exist.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

enum jwt_algorithm { JWT_OTHER, JWT_ES256, JWT_HS256 };

enum { JWT_KID_SIZE = 64 };

/* What the header of a token says; to choose a key by, and for nothing else. */
struct jwt_header {
	enum jwt_algorithm algorithm;
	char kid[JWT_KID_SIZE]; /* "" where there is none */
};

/* ERR_UNAUTH for what is not a compact JWS, or has "crit". */
int jwt_read_header(struct str token, struct jwt_header *ret, struct err *err) must_check;

/* One key with its one algorithm. Safe in threads once made. */
struct jwt_key;
/* EC P-256. */
int jwt_key_generate(struct jwt_key **ret, struct err *err) must_check;
/* EC P-256 from a JWK (RFC 7517), private or public; the two halves of a private one are checked against each other. */
int jwt_key_from_jwk(struct str jwk, struct jwt_key **ret, struct err *err) must_check;
/* HS256. */
int jwt_key_from_secret(const struct secret *secret, struct jwt_key **ret, struct err *err) must_check;
void jwt_key_free(struct jwt_key *key);
AUTOPTR_DEFINE(jwt_key)

/* EC: the RFC 7638 thumbprint. HS256: the first 16 hex digits of SHA-256(secret), as the Python Nimbus has it. */
const char *jwt_key_kid(const struct jwt_key *key);
enum jwt_algorithm jwt_key_algorithm(const struct jwt_key *key);
bool jwt_key_is_private(const struct jwt_key *key);
/* The JWK of the public half, as a JWKS lists it: kty, crv, x, y, kid, use, alg. EC only. */
void jwt_key_write_public(const struct jwt_key *key, struct buf *out);
/* The JWK with its private half. EC only. */
struct secret *jwt_key_write_private(const struct jwt_key *key) must_check;

/* Header {alg, kid, typ}. */
int jwt_sign(const struct jwt_key *key, struct str payload, struct secret **ret, struct err *err) must_check;
/* Appends the payload when the signature holds under this key and its algorithm; ERR_UNAUTH otherwise. */
int jwt_verify(const struct jwt_key *key, struct str token, struct buf *payload, struct err *err) must_check;
