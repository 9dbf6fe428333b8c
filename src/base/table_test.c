#include "base/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"

static const char *const titles[] = {"ID", "NAME", "END"};
static const struct screen pipe_screen = {.width = SIZE_MAX};

static struct table *make(void)
{
	struct table *t = table_new(titles, ARRAY_LEN(titles));

	table_cell_i64(t, 7);
	table_cell(t, "gr\xc3\xbc\xc3\x9f", STYLE_GOOD);
	table_cell(t, NULL, STYLE_PLAIN);
	table_cell_i64(t, 12345);
	table_cell(t, "a\x1b[2J\n", STYLE_PLAIN);
	table_cell(t, "x", STYLE_PLAIN);
	return t;
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
	(void)state;
	autoptr(table) t = make();
	autovar(buf) out = {0};

	table_print(t, &pipe_screen, &out);
	assert_string_equal(out.data, "ID     NAME    END\n"
				      "7      gr\xc3\xbc\xc3\x9f    -\n"
				      "12345  a?[2J?  x\n");
}

static void a_narrow_terminal_cuts_and_colours_only_what_is_styled(void **state)
{
	(void)state;
	const struct screen screen = {.tty = true, .colour = true, .width = 10};
	autoptr(table) t = make();
	autovar(buf) out = {0};

	table_print(t, &screen, &out);
	assert_non_null(strstr(out.data, "\n7      \x1b[32mgr\xc3\xbc\x1b[0m\n"));
	assert_non_null(strstr(out.data, "\n12345  a?[\n"));
}

static void times_are_relative_for_people_only(void **state)
{
	(void)state;
	static const struct {
		int64_t ago_s;
		const char *text;
	} cases[] = {{0, "0s ago"},    {59, "59s ago"},	   {60, "1m ago"},
		     {7300, "2h ago"}, {200000, "2d ago"}, {-7300, "in 2h"}};
	const struct screen tty = {.tty = true, .width = 80};
	static const char at_text[] = "2026-11-21T12:40:00Z";
	int64_t at = 0;

	assert_int_equal(clock_parse(str_c(at_text), &at, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		put_time(&tty, at_text, at + cases[i].ago_s * NS_PER_S, &out);
		assert_string_equal(out.data, cases[i].text);
	}
	autovar(buf) plain = {0};
	put_time(&pipe_screen, at_text, at, &plain);
	put_time(&pipe_screen, NULL, at, &plain);
	assert_string_equal(plain.data, "2026-11-21T12:40:00Z-");
}

static void the_widest_column_gives_first(void **state)
{
	(void)state;
	static const char *const wide[] = {"ID", "MESSAGE", "AGENT"};
	const struct screen screen = {.tty = true, .width = 36};
	autoptr(table) t = table_new(wide, ARRAY_LEN(wide));
	autovar(buf) out = {0};

	table_cell_i64(t, 12345678901);
	table_cell(t, "\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2 and much more than fits", STYLE_PLAIN);
	table_cell(t, "agent", STYLE_PLAIN);
	table_print(t, &screen, &out);
	assert_string_equal(out.data,
			    "ID           MESSAGE           AGENT\n"
			    "12345678901  \xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2 and much\xe2\x80\xa6  agent\n");
}

static void colour_is_asked_for_or_found(void **state)
{
	(void)state;
	static const struct {
		const char *flag, *no_color, *force;
		bool colour;
	} cases[] = {
		{NULL, "", "", false},	   {NULL, "", "1", true},     {NULL, "", "0", false},  {NULL, "1", "1", false},
		{"always", "1", "", true}, {"never", "", "1", false}, {"auto", "", "1", true},
	};

	/* Standard output is no terminal in a test. */
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		setenv("NO_COLOR", cases[i].no_color, 1);
		setenv("CLICOLOR_FORCE", cases[i].force, 1);
		if (screen_find(cases[i].flag).colour != cases[i].colour)
			fail_msg("case %zu", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
		cmocka_unit_test(a_narrow_terminal_cuts_and_colours_only_what_is_styled),
		cmocka_unit_test(times_are_relative_for_people_only),
		cmocka_unit_test(the_widest_column_gives_first),
		cmocka_unit_test(colour_is_asked_for_or_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
