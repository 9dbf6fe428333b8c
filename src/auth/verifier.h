/*
 * Tokens: bytes in, claims out. One verifier for all services.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "auth/token.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

struct config_secrets;
struct jwks;
struct keyring;

/* One kind's shared secrets: the current one, and older ones that still verify. Borrowed. */
struct token_secrets {
	const char *name;		    /* of the variable, for messages */
	const struct secret *current;	    /* NULL: none, then nothing of its kind is accepted */
	const struct config_secrets *older; /* or NULL */
};

struct verifier_secrets {
	struct token_secrets agent;
	struct token_secrets admin;
	struct token_secrets user;
	struct token_secrets cache;
};

enum { TOKEN_SECRET_MIN = 32 };
/* What a role checks before it starts: a secret of fewer than TOKEN_SECRET_MIN bytes (RFC 7518, 3.2) or one that would
 * stand for two kinds is refused; the message names the variable and what to do. `others` are further secrets of the
 * role, which need no length, but none of these may be among them. */
int token_secrets_check(const struct verifier_secrets *s, const struct token_secrets *others, size_t other_count,
			struct err *err) must_check;

struct verifier_opts {
	const struct keyring *keyring;	/* the control plane's own keys; or NULL. Borrowed. */
	struct jwks *jwks;		/* every other service's view of them; or NULL. Borrowed. */
	struct verifier_secrets shared; /* copied */
};

/* Safe in threads. Remembers verified tokens by their SHA-256 until they expire or a key changes, a bounded number. */
struct verifier;
/* ERR_INVALID when one secret would stand for two kinds. */
int verifier_new(const struct verifier_opts *opts, struct verifier **ret, struct err *err) must_check;
/* Other shared secrets, while it is in use. Where they are others, what has changed is appended in words. */
int verifier_set_secrets(struct verifier *v, const struct verifier_secrets *shared, struct buf *changed,
			 struct err *err) must_check;
/* Calls fn for the kid of each shared secret of that audience, the current one first. */
void verifier_each_shared(struct verifier *v, enum token_audience audience, void (*fn)(void *ctx, const char *kid),
			  void *ctx);
void verifier_free(struct verifier *v);
AUTOPTR_DEFINE(verifier)

/* `token` is what follows "Bearer ". audiences: TOKEN_BIT()s of whom this route is for. ERR_UNAVAILABLE: its key is
 * not known and cannot be fetched now. */
int verifier_verify(struct verifier *v, struct str token, unsigned audiences, int64_t now_at, struct claims *ret,
		    struct err *err) must_check;
/* The value of an Authorization header, or NULL where there is none: "Bearer TOKEN", the word in this spelling. */
int verifier_authorize(struct verifier *v, const char *authorization, unsigned audiences, int64_t now_at,
		       struct claims *ret, struct err *err) must_check;
