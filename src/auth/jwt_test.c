#include "auth/jwt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/encoding.h"
#include "base/mem.h"

/* RFC 7515, appendix A.3: its key, and its token. The thumbprint was made with another program. */
static const char rfc_jwk[] = "{\"kty\":\"EC\",\"crv\":\"P-256\","
			      "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
			      "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\","
			      "\"d\":\"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI\"}";
static const char rfc_public[] = "{\"kty\":\"EC\",\"crv\":\"P-256\","
				 "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
				 "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}";
static const char rfc_token[] =
	"eyJhbGciOiJFUzI1NiJ9."
	"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
	"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

/* RFC 7515, appendix A.1: HS256. */
static const char rfc_hmac_token[] =
	"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
	"eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
	"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
static const char rfc_hmac_key[] =
	"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

static struct jwt_key *key_of(const char *jwk)
{
	struct jwt_key *key = NULL;

	assert_int_equal(jwt_key_from_jwk(str_c(jwk), &key, NULL), 0);
	return key;
}

static struct jwt_key *hmac_key(void)
{
	autovar(buf) bytes = {0};
	autoptr(secret) secret = NULL;
	struct jwt_key *key = NULL;

	assert_int_equal(decode_base64(str_c(rfc_hmac_key), &bytes, NULL), 0);
	secret = secret_new(bytes.data, bytes.len);
	assert_int_equal(jwt_key_from_secret(secret, &key, NULL), 0);
	return key;
}

static void the_vectors_of_rfc_7515_verify(void **state)
{
	(void)state;
	autoptr(jwt_key) ec = key_of(rfc_public);
	autoptr(jwt_key) hmac = hmac_key();
	autovar(buf) a = {0};
	autovar(buf) b = {0};

	assert_int_equal(jwt_verify(ec, str_c(rfc_token), &a, NULL), 0);
	assert_int_equal(jwt_verify(hmac, str_c(rfc_hmac_token), &b, NULL), 0);
	assert_true(str_starts_with(buf_str(&a), STR("{\"iss\":\"joe\"")));
	assert_true(str_eq(buf_str(&a), buf_str(&b)));
}

static void the_thumbprint_is_that_of_rfc_7638(void **state)
{
	(void)state;
	autoptr(jwt_key) key = key_of(rfc_jwk);
	autoptr(jwt_key) public = key_of(rfc_public);

	assert_string_equal(jwt_key_kid(key), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
	assert_string_equal(jwt_key_kid(public), jwt_key_kid(key));
	assert_true(jwt_key_is_private(key));
	assert_false(jwt_key_is_private(public));
}

static void what_is_signed_verifies_under_its_own_key_only(void **state)
{
	(void)state;
	autoptr(jwt_key) key = NULL;
	autoptr(jwt_key) other = NULL;
	autoptr(jwt_key) public = NULL;
	autoptr(secret) token = NULL;
	autovar(buf) jwk = {0};
	autovar(buf) payload = {0};
	struct jwt_header header;

	assert_int_equal(jwt_key_generate(&key, NULL), 0);
	assert_int_equal(jwt_key_generate(&other, NULL), 0);
	jwt_key_write_public(key, &jwk);
	assert_null(strstr(jwk.data, "\"d\""));
	public = key_of(jwk.data);
	assert_int_equal(jwt_sign(key, STR("{\"a\":1}"), &token, NULL), 0);
	assert_int_equal(jwt_read_header(secret_reveal(token), &header, NULL), 0);
	assert_int_equal(header.algorithm, JWT_ES256);
	assert_string_equal(header.kid, jwt_key_kid(key));
	assert_int_equal(jwt_verify(public, secret_reveal(token), &payload, NULL), 0);
	assert_string_equal(payload.data, "{\"a\":1}");
	assert_int_equal(jwt_verify(other, secret_reveal(token), &payload, NULL), -ERR_UNAUTH);
	assert_string_equal(payload.data, "{\"a\":1}");
}

static void a_private_key_comes_back_as_it_was_written(void **state)
{
	(void)state;
	autoptr(jwt_key) key = key_of(rfc_jwk);
	autoptr(secret) text = jwt_key_write_private(key);
	autoptr(jwt_key) again = NULL;

	assert_int_equal(jwt_key_from_jwk(secret_reveal(text), &again, NULL), 0);
	assert_true(jwt_key_is_private(again));
	assert_string_equal(jwt_key_kid(again), jwt_key_kid(key));
}

static char *encode(const char *text)
{
	autovar(buf) out = {0};

	encode_base64url(str_c(text), &out);
	return buf_take(&out);
}

/* header.payload.signature with that header, and the rest of the RFC's token. */
static char *with_header(const char *header)
{
	autofree char *first = encode(header);

	return xasprintf("%s%s", first, strchr(rfc_token, '.'));
}

static void forged_headers_are_refused(void **state)
{
	(void)state;
	static const char *const headers[] = {
		"{\"alg\":\"none\"}",
		"{\"alg\":\"None\"}",
		"{\"alg\":\"\"}",
		"{}",
		"{\"alg\":null}",
		"{\"alg\":256}",
		"{\"alg\":\"HS256\"}", /* the public key as a shared secret */
		"{\"alg\":\"ES384\"}",
		"{\"alg\":\"RS256\"}",
		"{\"alg\":\"ES256\",\"alg\":\"none\"}",
		"{\"alg\":\"ES256\",\"crit\":[\"exp\"]}",
		"{\"alg\":\"ES256\"} ", /* not the bytes that were signed */
		"[]",
		"\"ES256\"",
	};
	autoptr(jwt_key) key = key_of(rfc_public);

	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		autofree char *token = with_header(headers[i]);
		autovar(buf) payload = {0};
		struct err err = {0};

		assert_int_equal(jwt_verify(key, str_c(token), &payload, &err), -ERR_UNAUTH);
		assert_int_equal(payload.len, 0);
	}
}

static void broken_tokens_are_refused(void **state)
{
	(void)state;
	static const char *const tokens[] = {
		"",
		".",
		"..",
		"...",
		"a.b.c",
		"eyJhbGciOiJFUzI1NiJ9",
		"eyJhbGciOiJFUzI1NiJ9.e30",
		"eyJhbGciOiJFUzI1NiJ9.e30.",
		"eyJhbGciOiJFUzI1NiJ9..AAAA",
		"eyJhbGciOiJFUzI1NiJ9.e30.AAAA",
		"eyJhbGciOiJFUzI1NiJ9.e30.AAAA.AAAA",
		"eyJhbGciOiJFUzI1NiJ9.e30.!!!!",
		"!!!!.e30.AAAA",
		"eyJhbGciOiJFUzI1NiJ9.e=0.AAAA", /* cjose would end the process */
		"eyJhbGciOiJFUzI1NiJ9.e30=.AAAA",
		"eyJhbGciOiJFUzI1NiJ9.e30.AAAAA",
		"eyJhbGciOiJFUzI1NiJ9.e30.AA+/",
		"eyJhbGciOiJFUzI1NiJ9.e30.AA AA",
		"eyJhbGciOiJFUzI1NiJ9.e30.AAAA=",
		/* r = s = 0: the signature that fooled Java in 2022 */
		"eyJhbGciOiJFUzI1NiJ9.e30."
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	};
	autoptr(jwt_key) key = key_of(rfc_public);

	for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
		autovar(buf) payload = {0};

		if (jwt_verify(key, str_c(tokens[i]), &payload, NULL) != -ERR_UNAUTH)
			fail_msg("'%s' verified", tokens[i]);
	}
}

static void every_changed_byte_breaks_a_token(void **state)
{
	(void)state;
	autoptr(jwt_key) key = key_of(rfc_public);

	/* The last character has bits to spare; which of them are zero is the decoder's business. */
	for (size_t i = 0; i < sizeof(rfc_token) - 2; i++) {
		char token[sizeof(rfc_token)];
		autovar(buf) payload = {0};

		memcpy(token, rfc_token, sizeof(token));
		token[i] = token[i] == 'A' ? 'B' : 'A';
		if (jwt_verify(key, str_c(token), &payload, NULL) != -ERR_UNAUTH)
			fail_msg("verified with byte %zu changed", i);
	}
}

static void keys_that_are_not_ours_are_refused(void **state)
{
	(void)state;
#define X "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\""
#define Y "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\""
	static const char *const keys[] = {
		"",
		"{}",
		"[]",
		"{\"kty\":\"EC\",\"crv\":\"P-256\"," X "}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\"," Y "}",
		"{\"kty\":\"EC\",\"crv\":\"P-384\"," X "," Y "}",
		"{\"kty\":\"oct\",\"k\":\"AAAA\"}",
		"{\"kty\":\"RSA\",\"crv\":\"P-256\"," X "," Y "}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\",\"alg\":\"none\"," X "," Y "}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\",\"use\":\"enc\"," X "," Y "}",
		/* short; not on the curve; the private half of another key */
		"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\"," Y "}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"," Y "}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\"," X "," Y ",\"d\":\"AAAA\"}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\"," X "," Y ",\"d\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\"}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\"," X "," Y ",\"d\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
	};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		struct jwt_key *key = NULL;
		struct err err = {0};

		if (jwt_key_from_jwk(str_c(keys[i]), &key, &err) >= 0)
			fail_msg("key %zu was taken", i);
		assert_null(strstr(err.msg, "AQEB"));
	}
}

static void a_shared_key_is_named_by_its_hash(void **state)
{
	(void)state;
	autoptr(secret) secret = secret_new("local-jwt-secret", 16);
	autoptr(secret) empty = secret_new("", 0);
	autoptr(jwt_key) key = NULL;
	struct jwt_key *none = NULL;

	assert_int_equal(jwt_key_from_secret(secret, &key, NULL), 0);
	assert_string_equal(jwt_key_kid(key), "91dbe8ff88653e7f");
	assert_int_equal(jwt_key_from_secret(empty, &none, NULL), -ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_vectors_of_rfc_7515_verify),
		cmocka_unit_test(the_thumbprint_is_that_of_rfc_7638),
		cmocka_unit_test(what_is_signed_verifies_under_its_own_key_only),
		cmocka_unit_test(a_private_key_comes_back_as_it_was_written),
		cmocka_unit_test(forged_headers_are_refused),
		cmocka_unit_test(broken_tokens_are_refused),
		cmocka_unit_test(every_changed_byte_breaks_a_token),
		cmocka_unit_test(keys_that_are_not_ours_are_refused),
		cmocka_unit_test(a_shared_key_is_named_by_its_hash),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
