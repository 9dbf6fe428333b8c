#include "proto/log_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void assert_text(struct str got, const char *wanted)
{
	assert_int_equal(got.len, strlen(wanted));
	if (got.len > 0)
		assert_memory_equal(got.data, wanted, got.len);
}

static void commands_are_found_in_both_forms(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		enum log_markup markup;
		const char *data;
	} cases[] = {
		{"::group::Build all", LOG_MARKUP_GROUP, "Build all"},
		{"::group::", LOG_MARKUP_GROUP, ""},
		{"##[group]Build", LOG_MARKUP_GROUP, "Build"},
		{"::endgroup::", LOG_MARKUP_ENDGROUP, ""},
		{"##[endgroup]", LOG_MARKUP_ENDGROUP, ""},
		{" \t::ERROR::x::y", LOG_MARKUP_ERROR, "x::y"},
		{"::warning file=a::w", LOG_MARKUP_WARNING, "w"},
		{"::notice::n", LOG_MARKUP_NOTICE, "n"},
		{"##[debug]d", LOG_MARKUP_DEBUG, "d"},
		{"::debug::", LOG_MARKUP_DEBUG, ""},
		{"::add-mask::s", LOG_MARKUP_ADD_MASK, "s"},
		{"##[add-mask]s", LOG_MARKUP_ADD_MASK, "s"},
		{"::stop-commands::t", LOG_MARKUP_STOP, "t"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct log_command c = {0};

		if (!log_command_parse(str_c(cases[i].line), &c))
			fail_msg("%s is no command", cases[i].line);
		assert_int_equal(c.markup, cases[i].markup);
		assert_text(c.data, cases[i].data);
	}
}

static void everything_else_is_text(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"",
		":",
		"::",
		"::::",
		"::group",
		"::group:x",
		"x ::group::",
		"::groups::x",
		"##[group",
		"##[]",
		"#[group]x",
		"::set-output name=a::b",
		":: group::x",
		"::echo::on",
		"::error",
		"## [error]x",
		"::save-state::x",
		"::err or::x",
	};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct log_command c = {0};

		if (log_command_parse(str_c(texts[i]), &c))
			fail_msg("'%s' is a command", texts[i]);
	}
}

static void annotations_say_where(void **state)
{
	(void)state;
	struct log_command c = {0};

	assert_true(log_command_parse(
		STR("::error file=src/a%2Cb.c,line=3,endLine=4,col=7,endColumn=9,title=No%3A such::m%0An"), &c));
	assert_text(c.file, "src/a%2Cb.c");
	assert_text(c.title, "No%3A such");
	assert_int_equal(c.line, 3);
	assert_int_equal(c.end_line, 4);
	assert_int_equal(c.col, 7);
	assert_int_equal(c.end_col, 9);
	assert_text(c.data, "m%0An");
	/* The second form has other separators; odd values are absent, and what is not known is passed over. */
	assert_true(log_command_parse(STR("##[warning file=a,b.c;line=x;col=12345678901;odd=1;=;title]w"), &c));
	assert_text(c.file, "a,b.c");
	assert_int_equal(c.line, 0);
	assert_int_equal(c.col, 0);
	assert_text(c.title, "");
	assert_true(log_command_parse(STR("::error FILE=a , Line= 5 ::w"), &c));
	assert_text(c.file, "a ");
	assert_int_equal(c.line, 5);
}

static void escapes_are_githubs(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *data;
		const char *property;
	} cases[] = {
		{"plain", "plain", "plain"},
		{"a%0Ab%0Dc", "a\nb\rc", "a\nb\rc"},
		{"%250A", "%0A", "%0A"},
		{"%3A%2C%3B%5D", "%3A%2C%3B%5D", ":,;]"},
		{"%", "%", "%"},
		{"%2", "%2", "%2"},
		{"100%", "100%", "100%"},
		{"%zz%25", "%zz%", "%zz%"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) data = {0};
		autovar(buf) property = {0};

		log_command_unescape(str_c(cases[i].text), false, &data);
		log_command_unescape(str_c(cases[i].text), true, &property);
		assert_string_equal(data.data, cases[i].data);
		assert_string_equal(property.data, cases[i].property);
	}
}

static enum log_markup take(struct log_commands *c, const char *line)
{
	struct log_command found = {0};

	return log_commands_take(c, str_c(line), &found) ? found.markup : LOG_MARKUP_NONE;
}

static void stopped_commands_are_text(void **state)
{
	(void)state;
	struct log_commands c = {0};
	char token[LOG_COMMAND_TOKEN_MAX + 2] = "";
	autovar(buf) line = {0};

	assert_int_equal(take(&c, "::stop-commands::error"), LOG_MARKUP_NONE);
	assert_int_equal(take(&c, "::stop-commands::"), LOG_MARKUP_NONE);
	assert_int_equal(take(&c, "::error::still on"), LOG_MARKUP_ERROR);
	assert_int_equal(take(&c, "::stop-commands::t0ken"), LOG_MARKUP_STOP);
	assert_int_equal(take(&c, "::error::x"), LOG_MARKUP_NONE);
	assert_int_equal(take(&c, "::stop-commands::other"), LOG_MARKUP_NONE);
	assert_int_equal(take(&c, "::other::"), LOG_MARKUP_NONE);
	assert_int_equal(take(&c, "::T0KEN::"), LOG_MARKUP_RESUME);
	assert_int_equal(take(&c, "::t0ken::"), LOG_MARKUP_NONE);
	assert_int_equal(take(&c, "::error::x"), LOG_MARKUP_ERROR);
	/* A token has a bound. */
	memset(token, 'a', LOG_COMMAND_TOKEN_MAX + 1);
	buf_printf(&line, "::stop-commands::%s", token);
	assert_int_equal(take(&c, line.data), LOG_MARKUP_NONE);
	line.data[line.len - 1] = '\0';
	assert_int_equal(take(&c, line.data), LOG_MARKUP_STOP);
}

/* A line is held for as long as it may be a command, and no longer. */
static void the_beginning_of_a_line_decides(void **state)
{
	(void)state;
	static const struct {
		const char *start;
		enum log_command_start is;
	} cases[] = {
		{"", LOG_COMMAND_UNDECIDED},   {"  ", LOG_COMMAND_UNDECIDED}, {":", LOG_COMMAND_UNDECIDED},
		{"::", LOG_COMMAND_PERHAPS},   {"::x", LOG_COMMAND_PERHAPS},  {"#", LOG_COMMAND_UNDECIDED},
		{"##", LOG_COMMAND_UNDECIDED}, {"##[", LOG_COMMAND_PERHAPS},  {"#!", LOG_COMMAND_NEVER},
		{"hello", LOG_COMMAND_NEVER},  {":x", LOG_COMMAND_NEVER},     {"\t ::", LOG_COMMAND_PERHAPS},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(log_command_start(str_c(cases[i].start)), cases[i].is);
	assert_true(log_command_masks(STR("  ::ADD-MASK::")));
	assert_true(log_command_masks(STR("##[add-mask]s")));
	assert_false(log_command_masks(STR("::add-mask:")));
	assert_false(log_command_masks(STR("::error::add-mask::")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_are_found_in_both_forms),
		cmocka_unit_test(everything_else_is_text),
		cmocka_unit_test(annotations_say_where),
		cmocka_unit_test(escapes_are_githubs),
		cmocka_unit_test(stopped_commands_are_text),
		cmocka_unit_test(the_beginning_of_a_line_decides),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
