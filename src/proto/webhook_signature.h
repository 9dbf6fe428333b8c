/*
 * Who sent a webhook, and when. Two ways to say it:
 *
 *	GitHub's     X-Hub-Signature-256: sha256=HEX, the HMAC of the body. X-Hub-Signature-Timestamp (Unix seconds) is
 *	             looked at when it is there; it is not signed, so it keeps out only what was delayed by accident.
 *	our senders' X-Nimbus-Signature: v1=HEX, the HMAC of "TIMESTAMP.NONCE.BODY", with the same timestamp header and
 *	             X-Nimbus-Nonce. Each nonce counts once, for as long as its timestamp would be taken.
 *
 * A signature of one kind is never one of the other: a body that is taken begins with '{', TIMESTAMP with a digit. All
 * by HMAC-SHA256. Pure: who remembers nonces is the caller.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

#define WEBHOOK_SIGNATURE_HEADER "X-Hub-Signature-256"
#define WEBHOOK_TIMESTAMP_HEADER "X-Hub-Signature-Timestamp"
#define WEBHOOK_NIMBUS_SIGNATURE_HEADER "X-Nimbus-Signature"
#define WEBHOOK_NONCE_HEADER "X-Nimbus-Nonce"

enum { WEBHOOK_NONCE_MIN = 16, WEBHOOK_NONCE_MAX = 128 };

/* Values of the four headers; NULL where one is absent. */
struct webhook_headers {
	const char *signature;
	const char *timestamp;
	const char *nimbus_signature;
	const char *nonce;
};

struct webhook_policy {
	struct secret *const *secrets; /* any of them will do */
	size_t secret_count;
	int64_t tolerance_ns; /* either side of now; 0 or less: an unsigned timestamp is not looked at */
	bool require_timestamp;
};

/* What a signed timestamp may be off where the policy does not say: without an end nonces could not be forgotten. */
#define WEBHOOK_TOLERANCE_DEFAULT_NS (300 * INT64_C(1000000000))

/*
 * ERR_FORBIDDEN: not signed by one of the secrets, found out in the same time for each. ERR_INVALID: a header is
 * missing or cannot be read. ERR_CONFLICT: signed, but too old or too new. *ret_nonce is borrowed from the headers, or
 * NULL where there is none to remember.
 */
int webhook_verify(const struct webhook_headers *headers, const struct webhook_policy *policy, struct str body,
		   int64_t now_at, const char **ret_nonce, struct err *err) must_check;
/* How long from now a nonce must be remembered, clocks that differ allowed for. */
int64_t webhook_nonce_life_ns(const struct webhook_policy *policy);

/* What a sender writes into the two signature headers; `timestamp` and `nonce` as it sends them. */
void webhook_sign(const struct secret *secret, struct str body, struct buf *out);
void webhook_sign_nimbus(const struct secret *secret, const char *timestamp, const char *nonce, struct str body,
			 struct buf *out);
