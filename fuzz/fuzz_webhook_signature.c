/* The signature headers of a webhook: anybody may send them. One line each, then the body. */
#include <assert.h>
#include <string.h>
#include <strings.h>

#include "base/arena.h"
#include "fuzz.h"
#include "proto/webhook_signature.h"

#define NOW_AT (1700000000 * INT64_C(1000000000))

static const char *next_line(struct arena *a, struct str *rest)
{
	struct str line = str_cut(rest, '\n');

	/* A header has no NUL. */
	return line.len > 0 && memchr(line.data, '\0', line.len) == NULL ? arena_str(a, line) : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(arena) a = arena_new();
	autoptr(secret) secret = secret_new("It's a Secret to Everybody", 26);
	const struct webhook_policy policy = {
		.secrets = &secret, .secret_count = 1, .tolerance_ns = 300 * INT64_C(1000000000)};
	struct str rest = {(const char *)data, size};
	struct webhook_headers h = {.signature = next_line(a, &rest)};
	autovar(buf) right = {0};
	const char *nonce = NULL;

	h.timestamp = next_line(a, &rest);
	h.nimbus_signature = next_line(a, &rest);
	h.nonce = next_line(a, &rest);
	if (webhook_verify(&h, &policy, rest, NOW_AT, &nonce, NULL) < 0)
		return 0;
	/* What is taken is what was signed. */
	if (h.nimbus_signature != NULL)
		webhook_sign_nimbus(secret, h.timestamp, nonce, rest, &right);
	else
		webhook_sign(secret, rest, &right);
	assert(strcasecmp(right.data, h.nimbus_signature != NULL ? h.nimbus_signature : h.signature) == 0);
	return 0;
}
