/*
 * The control plane's signing keys: one JWK file (0600) per key in a folder of their own, named KID.jwk. Two members
 * beside the JWK's own say when it counts: "nbf", from when it signs, and "exp", when it is over (both Unix seconds).
 *
 * A key is *next* before its nbf: listed, so that everybody knows it before it is used. It is *active* until a younger
 * one's time has come, then *previous*: it verifies until its exp, and is unknown afterwards. All of it follows from
 * the files and the clock, so control planes that share the folder (or copies of it) agree, and a crash between two
 * steps of a rotation leaves keys that all work.
 *
 * Safe in threads. A key that was handed out lives as long as its ring.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/jwt.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct keyring;

/* Makes the first key where there is none. Refuses a file that others may read, whose name is not its key's thumbprint,
 * whose halves do not match, and keys that are all over. The message names the file. */
int keyring_open(const char *folder, struct keyring **ret, struct err *err) must_check;
void keyring_free(struct keyring *k);
AUTOPTR_DEFINE(keyring)

/* Reads the folder again where it was changed, or in any case. What changed is appended in a few words; on an error the
 * keys stay as they were. */
int keyring_refresh(struct keyring *k, bool always, struct buf *changed, struct err *err) must_check;
/* Grows whenever keys came, went, or got another time: what was verified before may not hold any more. */
uint64_t keyring_generation(const struct keyring *k);

/* The key that signs; NULL when all are over. */
const struct jwt_key *keyring_active(const struct keyring *k, int64_t now_at);
/* NULL where there is none, or its time is over. ret_until_at (may be NULL): when that will be; 0: no end is set. */
const struct jwt_key *keyring_find(const struct keyring *k, const char *kid, int64_t now_at, int64_t *ret_until_at);
/* Appends the JWKS document: {"keys":[...]}: next, active and previous keys, with exp where it is set. */
void keyring_write_jwks(const struct keyring *k, int64_t now_at, struct buf *out);

enum key_state { KEY_NEXT, KEY_ACTIVE, KEY_PREVIOUS, KEY_OVER };
const char *key_state_name(enum key_state state);
struct key_info {
	char kid[JWT_KID_SIZE];
	enum key_state state;
	int64_t from_at;  /* Unix ns */
	int64_t until_at; /* 0: no end is set */
};
enum { KEYRING_MAX = 64 };
/* Youngest first; gives how many. */
size_t keyring_list(const struct keyring *k, int64_t now_at, struct key_info list[static KEYRING_MAX]);

/* --- changing the folder; every ring on it sees that with its next refresh --- */

struct keyring_rotation {
	int64_t now_at;
	int64_t publish_ns; /* how long the new key is listed before it signs */
	int64_t keep_ns;    /* how long the old ones verify after that */
};
/* Makes the next key, and sets the end of those that have none. ERR_CONFLICT while there is a next one already. What is
 * over is removed. */
int keyring_rotate(const char *folder, const struct keyring_rotation *how, char kid[static JWT_KID_SIZE],
		   struct err *err) must_check;
/* The key is over at once. ERR_NOT_FOUND; ERR_CONFLICT where no other could sign. */
int keyring_retire(const char *folder, const char *kid, int64_t now_at, struct err *err) must_check;
