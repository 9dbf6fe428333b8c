#include "auth/masker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/mem.h"

static void add(struct masker *m, const char *value)
{
	assert_int_equal(masker_add(m, str_c(value), NULL), 0);
}

static char *masked(struct masker *m, const char *text)
{
	autovar(buf) out = {0};

	masker_apply(m, str_c(text), &out);
	return buf_take(&out);
}

static void assert_masked(struct masker *m, const char *text, const char *want)
{
	autofree char *got = masked(m, text);

	assert_string_equal(got, want);
}

static void values_are_found_wherever_they_stand(void **state)
{
	(void)state;
	static const struct {
		const char *text, *want;
	} cases[] = {
		{"", ""},
		{"nothing here", "nothing here"},
		{"hunter2", "***"},
		{"a hunter2 b", "a *** b"},
		{"hunterhunter2", "hunter***"},
		{"hunter", "hunter"},
		{"xhunter2x", "x***x"},
		{"hunter2 hunter2", "*** ***"},
		{"hunter2hunter2", "***"},
		{"HUNTER2", "HUNTER2"},
	};
	autoptr(masker) m = masker_new();

	add(m, "hunter2");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_masked(m, cases[i].text, cases[i].want);
}

static void overlapping_values_become_one_mask(void **state)
{
	(void)state;
	autoptr(masker) m = masker_new();

	add(m, "abcdef");
	add(m, "defghi");
	add(m, "cdef");
	assert_masked(m, "xabcdefghiy", "x***y");
	assert_masked(m, "xcdefghiy", "x***y");
	assert_masked(m, "xabcdefy", "x***y");
	assert_masked(m, "xabcdey", "xabcdey");
}

/* What other programs print of "p@ss w/rd\"é<1>": made with python3, jq, node, go, php and coreutils. */
static void every_form_is_found(void **state)
{
	(void)state;
	static const char *const forms[] = {
		"p@ss w/rd\"\xc3\xa9<1>",
		"cEBzcyB3L3JkIsOpPDE+",		  /* base64 */
		"cEBzcyB3L3JkIsOpPDE-",		  /* base64url */
		"70407373207772",		  /* too little of the hex: see below */
		"7040737320772f726422c3a93c313e", /* xxd -p */
		"7040737320772F726422C3A93C313E",
		"p%40ss%20w%2Frd%22%C3%A9%3C1%3E", /* curl --data-urlencode, jq @uri */
		"p%40ss%20w%2frd%22%c3%a9%3c1%3e",
		"p%40ss+w%2Frd%22%C3%A9%3C1%3E",	/* quote_plus */
		"p%40ss%20w/rd%22%C3%A9%3C1%3E",	/* quote */
		"p@ss%20w/rd%22%C3%A9%3C1%3E",		/* encodeURI */
		"p@ss w/rd\\\"\xc3\xa9<1>",		/* JSON */
		"p@ss w/rd\\\"\\u00e9<1>",		/* json.dumps */
		"p@ss w/rd\\\"\xc3\xa9\\u003c1\\u003e", /* encoding/json */
		"p@ss w\\/rd\\\"\\u00e9<1>",		/* json_encode */
	};
	autoptr(masker) m = masker_new();

	add(m, forms[0]);
	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		if (i == 3)
			assert_masked(m, forms[i], forms[i]);
		else
			assert_masked(m, forms[i], "***");
	}
}

/* A secret inside something longer that is encoded as a whole: "user:" + secret, as in an Authorization header. */
static void base64_is_found_at_every_alignment(void **state)
{
	(void)state;
	static const char *const before[] = {"", "u", "us", "use", "user:"};
	static void (*const encoders[])(struct str, struct buf *) = {encode_base64, encode_base64url};

	for (size_t i = 0; i < ARRAY_LEN(before) * ARRAY_LEN(encoders); i++) {
		autoptr(masker) m = masker_new();
		autovar(buf) plain = {0};
		autovar(buf) text = {0};
		autofree char *got = NULL;

		add(m, "\xff\xfetop-secret\xfb");
		buf_puts(&plain, before[i % ARRAY_LEN(before)]);
		buf_puts(&plain, "\xff\xfetop-secret\xfb and more");
		encoders[i / ARRAY_LEN(before)](buf_str(&plain), &text);
		got = masked(m, text.data);
		assert_non_null(strstr(got, "***"));
		/* No more than a character at either end is left of it. */
		assert_true(strlen(got) <= text.len - 18 + 3 + 2);
	}
}

static void each_line_of_a_value_is_found(void **state)
{
	(void)state;
	autoptr(masker) m = masker_new();

	add(m, "first line\r\nabc\nthird line\n");
	assert_masked(m, "> third line <", "> *** <");
	assert_masked(m, "first line", "***");
	assert_masked(m, "abc", "abc");
	assert_masked(m, "first line\r\nabc\nthird line\n", "***\n");
}

static void short_values_are_not_masked(void **state)
{
	(void)state;
	autoptr(masker) m = masker_new();

	assert_int_equal(masker_add(m, STR("abc"), NULL), MASKER_TOO_SHORT);
	assert_int_equal(masker_add(m, STR("abc\n\n"), NULL), MASKER_TOO_SHORT);
	assert_int_equal(masker_add(m, STR(""), NULL), MASKER_TOO_SHORT);
	assert_masked(m, "abcdef 414243", "abcdef 414243");
}

static void bytes_that_may_begin_a_secret_are_held_and_no_others(void **state)
{
	(void)state;
	autoptr(masker) m = masker_new();
	autoptr(masker_stream) s = masker_stream_new(m);
	autovar(buf) out = {0};

	add(m, "hunter2");
	masker_feed(s, STR("a hun"), &out);
	assert_string_equal(out.data, "a ");
	assert_int_equal(masker_held(s), 3);
	masker_feed(s, STR("ter2"), &out);
	assert_string_equal(out.data, "a ***");
	assert_int_equal(masker_held(s), 0);
	masker_feed(s, STR(" hunt"), &out);
	masker_flush(s, &out);
	assert_string_equal(out.data, "a *** hunt");
}

static void a_value_added_in_mid_stream_is_found_from_there_on(void **state)
{
	(void)state;
	autoptr(masker) m = masker_new();
	autoptr(masker_stream) s = masker_stream_new(m);
	autovar(buf) out = {0};

	add(m, "secret-one");
	masker_feed(s, STR("one-two-three sec"), &out);
	add(m, "second");
	masker_feed(s, STR("ond secret-one one-two-three"), &out);
	masker_flush(s, &out);
	assert_string_equal(out.data, "one-two-three *** *** one-two-three");
}

/* Against a search that could not be simpler, over texts that nearly match all the time, cut anywhere. */
static void chunks_do_not_matter(void **state)
{
	(void)state;
	static const char *const values[] = {"abab", "babba", "aabbaabb", "bbbb"};

	for (int round = 0; round < 2000; round++) {
		autoptr(masker) m = masker_new();
		autoptr(masker_stream) s = masker_stream_new(m);
		autovar(buf) out = {0};
		autovar(buf) want = {0};
		char text[65] = {0};
		char marks[65] = {0};
		size_t at = 0;

		for (size_t i = 0; i < sizeof(text) - 1; i++)
			text[i] = (char)('a' + crypto_random_below(2));
		for (size_t v = 0; v < ARRAY_LEN(values); v++) {
			add(m, values[v]);
			for (const char *p = strstr(text, values[v]); p != NULL; p = strstr(p + 1, values[v]))
				memset(marks + (p - text), 1, strlen(values[v]));
		}
		for (size_t i = 0; i < sizeof(text) - 1; i++) {
			if (marks[i] == 0)
				buf_putc(&want, text[i]);
			else if (i == 0 || marks[i - 1] == 0)
				buf_puts(&want, "***");
		}
		while (at < sizeof(text) - 1) {
			size_t len = (size_t)crypto_random_below(9);

			if (len > sizeof(text) - 1 - at)
				len = sizeof(text) - 1 - at;
			masker_feed(s, (struct str){text + at, len}, &out);
			at += len;
		}
		masker_flush(s, &out);
		assert_string_equal(out.data, want.data);
	}
}

static void the_set_has_a_bound(void **state)
{
	(void)state;
	autoptr(masker) m = masker_new();
	struct err err = {0};
	autofree char *big = xcalloc(MASKER_NODES_MAX + 1, 1);

	memset(big, 'x', MASKER_NODES_MAX);
	assert_int_equal(masker_add(m, str_c(big), &err), -ERR_LIMIT);
	assert_null(strstr(err.msg, "xx"));
	add(m, "still works");
	assert_masked(m, "it still works", "it ***");
}

static void binary_values_are_found(void **state)
{
	(void)state;
	autoptr(masker) m = masker_new();
	autovar(buf) out = {0};

	assert_int_equal(masker_add(m, STR("\0\xff\0\n\x01"), NULL), 0);
	masker_apply(m, STR("a\0\xff\0\n\x01z"), &out);
	assert_string_equal(out.data, "a***z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_found_wherever_they_stand),
		cmocka_unit_test(overlapping_values_become_one_mask),
		cmocka_unit_test(every_form_is_found),
		cmocka_unit_test(base64_is_found_at_every_alignment),
		cmocka_unit_test(each_line_of_a_value_is_found),
		cmocka_unit_test(short_values_are_not_masked),
		cmocka_unit_test(bytes_that_may_begin_a_secret_are_held_and_no_others),
		cmocka_unit_test(a_value_added_in_mid_stream_is_found_from_there_on),
		cmocka_unit_test(chunks_do_not_matter),
		cmocka_unit_test(the_set_has_a_bound),
		cmocka_unit_test(binary_values_are_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
