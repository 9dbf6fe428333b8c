#include "base/crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/encoding.h"
static void expect_hex(struct sha256 digest, const char *hex)
{
	autovar(buf) text = {0};

	encode_hex((struct str){(const char *)digest.bytes, sizeof(digest.bytes)}, &text);
	assert_string_equal(text.data, hex);
}

/* FIPS 180-4, as published with its examples. */
static void sha256_vectors(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *hex;
	} cases[] = {
		{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct str text = str_c(cases[i].text);
		autoptr(crypto_hash) hash = crypto_hash_new();
		expect_hex(crypto_sha256(text), cases[i].hex);
		for (size_t n = 0; n < text.len; n++)
			crypto_hash_update(hash, (struct str){text.data + n, 1});
		expect_hex(crypto_hash_finish(hash), cases[i].hex);
	}
}

/* RFC 4231, cases 2 and 6; GitHub's documented example. */
static void hmac_vectors(void **state)
{
	(void)state;
	char long_key[131];
	memset(long_key, 0xaa, sizeof(long_key));
	const struct {
		struct str key;
		struct str text;
		const char *hex;
	} cases[] = {
		{STR("Jefe"), STR("what do ya want for nothing?"),
		 "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{{long_key, sizeof(long_key)},
		 STR("Test Using Larger Than Block-Size Key - Hash Key First"),
		 "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
		{STR("It's a Secret to Everybody"), STR("Hello, World!"),
		 "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(secret) key = secret_new(cases[i].key.data, cases[i].key.len);
		expect_hex(crypto_hmac(key, cases[i].text), cases[i].hex);
	}
}

static void equal_or_not(void **state)
{
	(void)state;
	assert_true(crypto_equal(STR("abc"), STR("abc")));
	assert_false(crypto_equal(STR("abc"), STR("abd")));
	assert_false(crypto_equal(STR("abc"), STR("ab")));
	assert_true(crypto_equal(STR(""), (struct str){NULL, 0}));
}

static void what_is_sealed_opens_with_its_key_and_context_only(void **state)
{
	(void)state;
	char bytes[AES_KEY_SIZE];
	crypto_random(bytes, sizeof(bytes));
	autoptr(secret) key = secret_new(bytes, sizeof(bytes));
	bytes[0] = (char)(bytes[0] ^ 1);
	autoptr(secret) other = secret_new(bytes, sizeof(bytes));
	static const struct str plains[] = {{"", 0}, {"hunter2", 7}};

	for (size_t i = 0; i < ARRAY_LEN(plains); i++) {
		autovar(buf) sealed = {0};
		autoptr(secret) opened = NULL;
		autoptr(secret) none = NULL;
		crypto_seal(key, STR("job 7"), plains[i], &sealed);
		assert_int_equal(sealed.len, plains[i].len + 28);
		assert_int_equal(crypto_open(key, STR("job 7"), buf_str(&sealed), &opened, NULL), 0);
		assert_true(secret_equal(opened, plains[i]));
		assert_true(crypto_open(key, STR("job 8"), buf_str(&sealed), &none, NULL) < 0);
		assert_true(crypto_open(other, STR("job 7"), buf_str(&sealed), &none, NULL) < 0);
		for (size_t n = 0; n < sealed.len; n++) {
			sealed.data[n] = (char)(sealed.data[n] ^ 1);
			assert_true(crypto_open(key, STR("job 7"), buf_str(&sealed), &none, NULL) < 0);
			sealed.data[n] = (char)(sealed.data[n] ^ 1);
		}
		struct str cut = {sealed.data, sealed.len - 1};
		assert_true(crypto_open(key, STR("job 7"), cut, &none, NULL) < 0);
		assert_true(crypto_open(key, STR("job 7"), STR("short"), &none, NULL) < 0);
		assert_null(none);
	}
}

static void sealing_twice_differs(void **state)
{
	(void)state;
	char bytes[AES_KEY_SIZE] = {0};
	autoptr(secret) key = secret_new(bytes, sizeof(bytes));
	autovar(buf) first = {0};
	autovar(buf) second = {0};

	crypto_seal(key, STR(""), STR("x"), &first);
	crypto_seal(key, STR(""), STR("x"), &second);
	assert_false(str_eq(buf_str(&first), buf_str(&second)));
}

static void random_numbers_stay_below_their_bound(void **state)
{
	(void)state;
	bool seen[5] = {0};

	for (int i = 0; i < 1000; i++) {
		uint64_t value = crypto_random_below(ARRAY_LEN(seen));
		assert_true(value < ARRAY_LEN(seen));
		seen[value] = true;
	}
	for (size_t i = 0; i < ARRAY_LEN(seen); i++)
		assert_true(seen[i]);
	assert_int_equal(crypto_random_below(1), 0);
	assert_true(crypto_random_u64() != crypto_random_u64());
}

static void a_random_secret_is_hex_and_new(void **state)
{
	(void)state;
	autoptr(secret) one = crypto_random_secret();
	autoptr(secret) other = crypto_random_secret();
	struct str text = secret_reveal(one);

	assert_int_equal(text.len, 64);
	assert_int_equal(strspn(text.data, "0123456789abcdef"), 64);
	assert_false(secret_equal(other, text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sha256_vectors),
		cmocka_unit_test(hmac_vectors),
		cmocka_unit_test(equal_or_not),
		cmocka_unit_test(what_is_sealed_opens_with_its_key_and_context_only),
		cmocka_unit_test(sealing_twice_differs),
		cmocka_unit_test(random_numbers_stay_below_their_bound),
		cmocka_unit_test(a_random_secret_is_hex_and_new),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
