#include "base/width.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void characters_have_their_width(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int width;
	} cases[] = {
		{"a", 1},
		{"\xc3\xbc", 1},	 /* u with two dots */
		{"\xe6\xbc\xa2", 2},	 /* a Chinese character */
		{"\xcc\x88", 0},	 /* two dots over what stands before */
		{"\xf0\x9f\x9a\x80", 2}, /* a rocket */
		{"\n", -1},
		{"\x7f", -1},
		{"\xc2\x9b", -1},     /* CSI in one */
		{"\xe2\x80\xae", -1}, /* right to left from here on */
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		if (width_of_character(str_c(cases[i].text)) != cases[i].width)
			fail_msg("case %zu: %d", i, width_of_character(str_c(cases[i].text)));
	}
}

static void text_is_counted_and_cut_by_columns(void **state)
{
	(void)state;
	static const char text[] = "a\xe6\xbc\xa2u\xcc\x88\xff";

	assert_int_equal(width_of_text(STR(text)), 5);
	assert_int_equal(width_cut(STR(text), 0), 0);
	assert_int_equal(width_cut(STR(text), 2), 1); /* half a character does not fit */
	assert_int_equal(width_cut(STR(text), 3), 4);
	assert_int_equal(width_cut(STR(text), 4), 7); /* what combines stays with its letter */
	assert_int_equal(width_cut(STR(text), 99), 8);
	assert_int_equal(width_of_text((struct str){0}), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(characters_have_their_width),
		cmocka_unit_test(text_is_counted_and_cut_by_columns),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
