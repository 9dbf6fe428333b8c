/*
 * Hashes, MACs, authenticated encryption and random bytes: the wrapper of OpenSSL's libcrypto.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

enum { SHA256_SIZE = 32, AES_KEY_SIZE = 32 };

struct sha256 {
	unsigned char bytes[SHA256_SIZE];
};

struct sha256 crypto_sha256(struct str data);
/* HMAC-SHA256, RFC 2104. */
struct sha256 crypto_hmac(const struct secret *key, struct str data);
/* The same of parts, one after the other. */
struct sha256 crypto_hmac_parts(const struct secret *key, const struct str *parts, size_t count);

/* SHA-256 piece by piece. */
struct crypto_hash;
struct crypto_hash *crypto_hash_new(void) must_check;
void crypto_hash_free(struct crypto_hash *h);
AUTOPTR_DEFINE(crypto_hash)
void crypto_hash_update(struct crypto_hash *h, struct str data);
struct sha256 crypto_hash_finish(struct crypto_hash *h);

/* Constant time; different lengths are different. */
bool crypto_equal(struct str a, struct str b);

/* From the kernel; aborts where it gives none. */
void crypto_random(void *bytes, size_t len);
/* A shared secret: 32 random bytes, as hex. */
struct secret *crypto_random_secret(void) must_check;
uint64_t crypto_random_u64(void);
/* Even over 0..bound-1; bound > 0. */
uint64_t crypto_random_below(uint64_t bound);

/*
 * AES-256-GCM with a fresh random nonce: appends nonce (12), ciphertext, tag (16) to out. `context` is
 * authenticated, not stored: opening needs the same, so that a row cannot be moved to another job.
 * One key seals at most 2^32 values (NIST SP 800-38D, 8.3).
 */
void crypto_seal(const struct secret *key, struct str context, struct str plain, struct buf *out);
int crypto_open(const struct secret *key, struct str context, struct str sealed, struct secret **ret, struct err *err)
	must_check;
