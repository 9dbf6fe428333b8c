/*
 * Tokens: what they claim, and how they are minted. auth/verifier.h is the other direction.
 *
 * ES256 JWTs carry a kid, an audience and scopes, and are minted by the control plane's keyring. HS256 JWTs of the
 * Python Nimbus carry neither audience nor scopes: which shared secret verifies one decides whether it is an agent's,
 * an admin's or a user's, so the same secret for two of them is refused at the start. Its cache tokens are no JWTs:
 * base64url(payload).hex(HMAC-SHA256).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/scope.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

struct keyring;

enum token_audience { TOKEN_AGENT, TOKEN_ADMIN, TOKEN_JOB, TOKEN_USER, TOKEN_CACHE, TOKEN_AUDIENCE_COUNT };
/* For sets of audiences. */
#define TOKEN_BIT(audience) (1U << (audience))

enum { CLAIMS_SUBJECT_SIZE = 160, CLAIMS_SCOPES_SIZE = 512, TOKEN_MAX = 8192 };
#define TOKEN_LEEWAY_NS (60 * INT64_C(1000000000))

/* Plain data, so that it can be copied and remembered. */
struct claims {
	enum token_audience audience;
	char subject[CLAIMS_SUBJECT_SIZE]; /* agent id, admin's or user's name, "job-ID"; "" of a cache token */
	char scopes[CLAIMS_SCOPES_SIZE];
	int64_t org_id; /* 0: none */
	int64_t job_id; /* 0: none */
	int64_t attempt;
	int64_t version;    /* "ver": the agent token's generation */
	int64_t issued_at;  /* Unix ns; 0: not said */
	int64_t expires_at; /* Unix ns; 0: never (shared-secret tokens only) */
	bool shared_secret; /* HS256: full rights of its audience, no scopes; a cache token: its scopes */
};

const char *token_audience_name(enum token_audience audience);

/* The claims of a token whose signature has been verified: its payload, JSON. Checks form, not time. An ES256 token
 * must have exp and a known aud; for a shared-secret one `secret_audience` is the answer. */
int claims_parse(struct str payload, bool shared_secret, enum token_audience secret_audience, struct claims *ret,
		 struct err *err) must_check;
/* ERR_TOKEN_EXPIRED, ERR_UNAUTH (not valid yet), ERR_FORBIDDEN (an audience that is not in `audiences`). */
int claims_check(const struct claims *c, unsigned audiences, int64_t now_at, struct err *err) must_check;
/* Appends the payload. */
void claims_write(const struct claims *c, struct buf *out);

/* The payload of a cache token, whose MAC has been verified. */
int claims_parse_cache(struct str payload, struct claims *ret, struct err *err) must_check;

/*
 * Rights. An admin's token without scopes may do everything; with scopes, just these. A user's token of the shared
 * secret names no organisation and reads all of them. Everybody else has the organisation of the token, and nothing
 * outside it.
 */
bool claims_allow(const struct claims *c, enum scope_op op, int64_t org_id, const char *repo) must_check;
/* A right that is a bare word: "seal". */
bool claims_may(const struct claims *c, const char *word) must_check;

/* Signs the claims, valid for ttl_ns from now_at (both go into the token), with the keyring's active key. */
int token_mint(const struct keyring *k, const struct claims *c, int64_t now_at, int64_t ttl_ns, struct secret **ret,
	       struct err *err) must_check;
/* The Python Nimbus's form, HS256: sub, iat, exp, ver. The audience is the secret's. */
int token_mint_shared(const struct secret *key, const struct claims *c, int64_t now_at, int64_t ttl_ns,
		      struct secret **ret, struct err *err) must_check;
