#include "base/encoding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* RFC 4648, section 10. */
static void vectors(void **state)
{
	(void)state;
	static const struct {
		const char *plain;
		const char *base64;
		const char *url;
		const char *hex;
	} cases[] = {
		{"", "", "", ""},
		{"f", "Zg==", "Zg", "66"},
		{"fo", "Zm8=", "Zm8", "666f"},
		{"foo", "Zm9v", "Zm9v", "666f6f"},
		{"foob", "Zm9vYg==", "Zm9vYg", "666f6f62"},
		{"foobar", "Zm9vYmFy", "Zm9vYmFy", "666f6f626172"},
		{"\xfb\xff\xfe", "+//+", "-__-", "fbfffe"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct str plain = str_c(cases[i].plain);
		autovar(buf) base64 = {0};
		autovar(buf) url = {0};
		autovar(buf) hex = {0};
		autovar(buf) back = {0};
		encode_base64(plain, &base64);
		encode_base64url(plain, &url);
		encode_hex(plain, &hex);
		assert_true(str_eq(buf_str(&base64), str_c(cases[i].base64)));
		assert_true(str_eq(buf_str(&url), str_c(cases[i].url)));
		assert_true(str_eq(buf_str(&hex), str_c(cases[i].hex)));
		assert_int_equal(decode_base64(buf_str(&base64), &back, NULL), 0);
		assert_int_equal(decode_base64(buf_str(&url), &back, NULL), 0);
		assert_int_equal(decode_hex(buf_str(&hex), &back, NULL), 0);
		assert_int_equal(back.len, 3 * plain.len);
		for (size_t n = 0; n < 3; n++)
			assert_true(str_eq((struct str){back.data + n * plain.len, plain.len}, plain));
	}
}

static void what_is_no_base64(void **state)
{
	(void)state;
	static const char *const cases[] = {"A", "Zg=x", "Zh", "Zm9=", "Zm 9v", "\xc3\xbc", "Zm9v\n"};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		if (decode_base64(str_c(cases[i]), &out, NULL) != -ERR_INVALID)
			fail_msg("taken: %s", cases[i]);
	}
}

static void what_is_no_hex(void **state)
{
	(void)state;
	static const char *const cases[] = {"a", "0g", "0x", " 0"};
	autovar(buf) out = {0};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(decode_hex(str_c(cases[i]), &out, NULL), -ERR_INVALID);
	assert_int_equal(decode_hex(STR("aF"), &out, NULL), 0);
	assert_int_equal((unsigned char)out.data[out.len - 1], 0xaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors),
		cmocka_unit_test(what_is_no_base64),
		cmocka_unit_test(what_is_no_hex),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
