#include "auth/cache_token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

/* Made by Python: json.dumps(..., sort_keys=True, separators=(",", ":")), hmac.new(key, payload, sha256). */
static const char known[] =
	"eyJleHBpcmVzX2F0IjoiMjAyNi0xMS0yMVQwNToxMjowMy42Njc3NTYrMDA6MDAiLCJvcmdhbml6YXRpb25faWQiOjcsIn"
	"Njb3BlIjoicHVsbDpvcmctNyxwdXNoOm9yZy03In0."
	"dfe2071c41a23d698cececc0ff0832efb253f2e2c8bf3d5718e583e14d7192ea";

static void the_bytes_are_those_of_the_python_nimbus(void **state)
{
	(void)state;
	autoptr(secret) key = secret_new("local-cache-secret", 18);
	int64_t expires_at = 0;

	assert_int_equal(clock_parse(STR("2026-11-21T05:12:03.667756Z"), &expires_at, NULL), 0);
	autoptr(secret) token = cache_token_mint(key, 7, "pull:org-7,push:org-7", expires_at);
	assert_true(secret_equal(token, str_c(known)));
}

static void a_whole_second_has_no_fraction(void **state)
{
	(void)state;
	autofree char *whole = cache_token_time(NS_PER_S);
	autofree char *part = cache_token_time(NS_PER_S + NS_PER_MS);

	assert_string_equal(whole, "1970-01-01T00:00:01+00:00");
	assert_string_equal(part, "1970-01-01T00:00:01.001000+00:00");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_bytes_are_those_of_the_python_nimbus),
		cmocka_unit_test(a_whole_second_has_no_fraction),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
