#include "base/terminal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct example {
	struct str text;
	const char *shown;
	bool coloured;
};

#define CASE(text, ...)                \
	{                              \
		STR(text), __VA_ARGS__ \
	}

static void what_steers_is_shown_and_colours_pass(void **state)
{
	(void)state;
	static const struct example cases[] = {
		CASE("", ""),
		CASE("plain \xc3\xa4\xe2\x82\xac\t tab\nnext", "plain \xc3\xa4\xe2\x82\xac\t tab\nnext"),
		CASE("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m", true),
		CASE("\x1b[38:2::1:2:3mx\x1b[m", "\x1b[38:2::1:2:3mx\x1b[m", true),
		CASE("\x1b]0;title\x07", "^[]0;title^G"),
		CASE("\x1b]52;c;ZXZpbA==\x1b\\", "^[]52;c;ZXZpbA==^[\\"),
		CASE("\x1b[2J\x1b[1;1H\x1b[?1049h", "^[[2J^[[1;1H^[[?1049h"),
		CASE("\x1b[>4;1m", "^[[>4;1m"),
		CASE("\x1b[1 m", "^[[1 m"),
		CASE("\x1bP1$r\x1b\\ \x1b(0 \x1b"
		     "c",
		     "^[P1$r^[\\ ^[(0 ^[c"),
		CASE("hidden\rshown", "hidden^Mshown"),
		CASE("windows\r", "windows"),
		CASE("back\b\b\x7f", "back^H^H^?"),
		CASE("\xc2\x9b"
		     "2J \xc2\x9dtitle\xc2\xa0",
		     "\\x9b2J \\x9dtitle\xc2\xa0"),
		CASE("\x9b"
		     "31m \xff\xc3",
		     "\\x9b31m \\xff\\xc3"),
		CASE("nul \0 end \x1b", "nul ^@ end ^["),
		CASE("cut \x1b[31", "cut ^[[31"),
		CASE("\x1b[00000000000000000000000000000000000000000000000000000000000000000m",
		     "^[[00000000000000000000000000000000000000000000000000000000000000000m"),
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		bool coloured = terminal_clean(cases[i].text, true, &out);
		assert_string_equal(out.data != NULL ? out.data : "", cases[i].shown);
		assert_int_equal(coloured, cases[i].coloured);
	}
}

static void without_colours_none_passes(void **state)
{
	(void)state;
	autovar(buf) out = {0};

	assert_false(terminal_clean(STR("\x1b[31mred\x1b[0m"), false, &out));
	assert_string_equal(out.data, "^[[31mred^[[0m");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_steers_is_shown_and_colours_pass),
		cmocka_unit_test(without_colours_none_passes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
