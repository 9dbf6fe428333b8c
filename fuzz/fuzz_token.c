/* A token from anybody: its header, its claims, a key set and a key. The claims parser is given what no signature
 * vouches for, because it must not depend on one. */
#include <assert.h>

#include "auth/jwks.h"
#include "auth/jwt.h"
#include "auth/token.h"
#include "fuzz.h"

static struct jwt_key *hmac_key(void)
{
	static struct jwt_key *key;
	autoptr(secret) secret = secret_new("fuzz", 4);

	if (key == NULL)
		assert(jwt_key_from_secret(secret, &key, NULL) == 0);
	return key;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str input = {(const char *)data, size};
	struct jwt_header header;
	struct claims claims;
	autovar(buf) payload = {0};
	autovar(jwks_set) set = {0};
	struct jwt_key *key = NULL;

	(void)!jwt_read_header(input, &header, NULL);
	if (jwt_verify(hmac_key(), input, &payload, NULL) == 0)
		assert(jwt_read_header(input, &header, NULL) == 0 && header.algorithm == JWT_HS256);
	if (claims_parse(input, false, TOKEN_AGENT, &claims, NULL) == 0) {
		autovar(buf) text = {0};
		struct claims again;

		assert(claims.expires_at > 0);
		claims_write(&claims, &text);
		assert(claims_parse(buf_str(&text), false, TOKEN_AGENT, &again, NULL) == 0);
		assert(again.audience == claims.audience && again.org_id == claims.org_id);
	}
	(void)!claims_parse(input, true, TOKEN_ADMIN, &claims, NULL);
	(void)!jwks_parse(input, &set, NULL);
	if (jwt_key_from_jwk(input, &key, NULL) == 0)
		jwt_key_free(key);
	return 0;
}
