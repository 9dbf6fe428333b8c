#include "cli/redact.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void what_is_known_or_looks_like_a_secret_goes(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *wanted;
	} cases[] = {
		{"plain text: 7 = 7", "plain text: 7 = 7"},
		{"a hunter2hunter2 b", "a *** b"},
		{"aHVudGVyMmh1bnRlcjI=", "***"}, /* the same in base64 */
		{"token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln, next", "token ***, next"},
		{"eyJust a word. No more", "eyJust a word. No more"},
		{"Authorization: Bearer abc.def-ghi\r\n", "Authorization: Bearer ***\r\n"},
		{"bearer ", "bearer "},
		{"x=ghp_0123456789abcdef;", "x=***;"},
		{"notghp_0123456789abcdef", "notghp_0123456789abcdef"},
		{"ghp_short", "ghp_short"},
		{"to postgresql://nimbus:pass/w@rd@db:5432/nimbus now",
		 "to postgresql://nimbus:***@db:5432/nimbus now"},
		{"http://host:8000/a@b", "http://host:***@b"}, /* better too much than too little */
		{"http://host:8000/a", "http://host:8000/a"},
		{"http://me@host/", "http://me@host/"},
		{"k -----BEGIN PRIVATE KEY-----\nMC4C\nAQAw\n-----END PRIVATE KEY----- l", "k *** l"},
		{"k -----BEGIN EC PRIVATE KEY-----\nMC4C", "k ***"},
		{"-----BEGIN CERTIFICATE-----\nMC4C\n", "-----BEGIN CERTIFICATE-----\nMC4C\n"},
		{"", ""},
	};
	autoptr(masker) known = masker_new();

	assert_int_equal(masker_add(known, STR("hunter2hunter2"), NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		redact(known, str_c(cases[i].text), &out);
		if (strcmp(out.len > 0 ? out.data : "", cases[i].wanted) != 0)
			fail_msg("'%s': '%s'", cases[i].text, out.len > 0 ? out.data : "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_known_or_looks_like_a_secret_goes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
