#include "proto/webhook_signature.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"

#define SECONDS_MAX (INT64_MAX / NS_PER_S)

enum { NIMBUS_PARTS = 5 };

/* What a signature is taken over. Neither timestamp nor nonce can have a dot in it, so no two triples are one message.
 */
static void nimbus_message(const char *timestamp, const char *nonce, struct str body, struct str parts[NIMBUS_PARTS])
{
	parts[0] = str_c(timestamp);
	parts[1] = STR(".");
	parts[2] = str_c(nonce);
	parts[3] = STR(".");
	parts[4] = body;
}

static int read_hex(const char *header, struct str prefix, struct buf *ret)
{
	struct str given = str_c(header);

	if (!str_starts_with(given, prefix))
		return -1;
	return decode_hex((struct str){given.data + prefix.len, given.len - prefix.len}, ret, NULL);
}

/* All secrets are tried whatever the first says. */
static bool signed_by_one(const struct webhook_policy *policy, const struct str *parts, size_t count, struct str given)
{
	bool good = false;

	for (size_t i = 0; i < policy->secret_count; i++) {
		struct sha256 mac = crypto_hmac_parts(policy->secrets[i], parts, count);
		good |= crypto_equal(given, (struct str){(const char *)mac.bytes, sizeof(mac.bytes)});
	}
	return good;
}

static int check_signature(const struct webhook_policy *policy, const char *name, const char *header, struct str prefix,
			   const struct str *parts, size_t count, struct err *err)
{
	autovar(buf) given = {0};

	if (header == NULL || read_hex(header, prefix, &given) < 0)
		return err_set(err, ERR_FORBIDDEN, "Invalid webhook signature: %s is missing, or not %.*sHEX", name,
			       STR_ARG(prefix));
	if (!signed_by_one(policy, parts, count, buf_str(&given)))
		return err_set(err, ERR_FORBIDDEN, "Invalid webhook signature: it does not fit the body");
	return 0;
}

static int read_timestamp(const char *text, int64_t *ret_at, struct err *err)
{
	int64_t seconds = 0;
	int rc = str_to_i64(str_c(text), "timestamp", 0, SECONDS_MAX, &seconds, NULL);

	if (rc < 0 || !isdigit((unsigned char)text[0]))
		return err_set(err, ERR_INVALID,
			       "Invalid signature timestamp: " WEBHOOK_TIMESTAMP_HEADER " is not a number of seconds");
	*ret_at = seconds * NS_PER_S;
	return 0;
}

static int check_age(int64_t sent_at, int64_t now_at, int64_t tolerance_ns, struct err *err)
{
	/* Both are not negative, so their difference is a number. */
	int64_t off_ns = sent_at > now_at ? sent_at - now_at : now_at - sent_at;

	if (off_ns <= tolerance_ns)
		return 0;
	return err_set(err, ERR_CONFLICT,
		       "Stale webhook delivery: its timestamp is %" PRId64 " s off, and %" PRId64
		       " s are allowed; check the sender's clock and this server's",
		       off_ns / NS_PER_S, tolerance_ns / NS_PER_S);
}

static int64_t nimbus_tolerance_ns(const struct webhook_policy *policy)
{
	return policy->tolerance_ns > 0 ? policy->tolerance_ns : WEBHOOK_TOLERANCE_DEFAULT_NS;
}

static int missing_timestamp(struct err *err)
{
	return err_set(err, ERR_INVALID, "Missing signature timestamp: send " WEBHOOK_TIMESTAMP_HEADER);
}

static int check_nonce(const char *nonce, struct err *err)
{
	size_t len = nonce != NULL ? strlen(nonce) : 0;
	bool good = len >= WEBHOOK_NONCE_MIN && len <= WEBHOOK_NONCE_MAX;

	for (size_t i = 0; good && i < len; i++)
		good = isalnum((unsigned char)nonce[i]) || nonce[i] == '-' || nonce[i] == '_';
	if (!good)
		return err_set(err, ERR_INVALID,
			       "Invalid nonce: " WEBHOOK_NONCE_HEADER " is not %d to %d letters, digits, '-' and '_'",
			       WEBHOOK_NONCE_MIN, WEBHOOK_NONCE_MAX);
	return 0;
}

static int verify_nimbus(const struct webhook_headers *h, const struct webhook_policy *policy, struct str body,
			 int64_t now_at, struct err *err)
{
	struct str parts[NIMBUS_PARTS];
	int64_t sent_at = 0;
	int rc = h->timestamp != NULL ? read_timestamp(h->timestamp, &sent_at, err) : missing_timestamp(err);

	if (rc == 0)
		rc = check_nonce(h->nonce, err);
	if (rc < 0)
		return rc;
	nimbus_message(h->timestamp, h->nonce, body, parts);
	rc = check_signature(policy, WEBHOOK_NIMBUS_SIGNATURE_HEADER, h->nimbus_signature, STR("v1="), parts,
			     NIMBUS_PARTS, err);
	return rc < 0 ? rc : check_age(sent_at, now_at, nimbus_tolerance_ns(policy), err);
}

static int verify_github(const struct webhook_headers *h, const struct webhook_policy *policy, struct str body,
			 int64_t now_at, struct err *err)
{
	int64_t sent_at = 0;
	int rc = check_signature(policy, WEBHOOK_SIGNATURE_HEADER, h->signature, STR("sha256="), &body, 1, err);

	if (rc < 0)
		return rc;
	if (h->timestamp == NULL)
		return policy->require_timestamp ? missing_timestamp(err) : 0;
	if (policy->tolerance_ns <= 0)
		return 0;
	rc = read_timestamp(h->timestamp, &sent_at, err);
	return rc < 0 ? rc : check_age(sent_at, now_at, policy->tolerance_ns, err);
}

int webhook_verify(const struct webhook_headers *headers, const struct webhook_policy *policy, struct str body,
		   int64_t now_at, const char **ret_nonce, struct err *err)
{
	bool nimbus = headers->nimbus_signature != NULL;
	int rc = nimbus ? verify_nimbus(headers, policy, body, now_at, err)
			: verify_github(headers, policy, body, now_at, err);

	if (rc == 0)
		*ret_nonce = nimbus ? headers->nonce : NULL;
	return rc;
}

int64_t webhook_nonce_life_ns(const struct webhook_policy *policy)
{
	return 2 * nimbus_tolerance_ns(policy);
}

static void write_mac(const struct secret *secret, const struct str *parts, size_t count, const char *prefix,
		      struct buf *out)
{
	struct sha256 mac = crypto_hmac_parts(secret, parts, count);

	buf_puts(out, prefix);
	encode_hex((struct str){(const char *)mac.bytes, sizeof(mac.bytes)}, out);
}

void webhook_sign(const struct secret *secret, struct str body, struct buf *out)
{
	write_mac(secret, &body, 1, "sha256=", out);
}

void webhook_sign_nimbus(const struct secret *secret, const char *timestamp, const char *nonce, struct str body,
			 struct buf *out)
{
	struct str parts[NIMBUS_PARTS];

	nimbus_message(timestamp, nonce, body, parts);
	write_mac(secret, parts, NIMBUS_PARTS, "v1=", out);
}
