#include "cli/markup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct screen plain = {.tty = true, .width = 80};
static const struct screen coloured = {.tty = true, .colour = true, .width = 80};

static bool put(struct markup *m, enum log_markup markup, const char *text, struct buf *out)
{
	const struct log_line line = {.markup = markup, .message = str_c(text)};
	bool shown = markup_put(m, &plain, &line, out);

	if (shown)
		buf_putc(out, '\n');
	return shown;
}

static void a_log_is_shown_in_its_groups(void **state)
{
	(void)state;
	struct markup m = {0};
	autovar(buf) out = {0};

	assert_true(put(&m, LOG_MARKUP_NONE, "before", &out));
	assert_true(put(&m, LOG_MARKUP_GROUP, "::group::Build it", &out));
	assert_true(put(&m, LOG_MARKUP_NONE, "cc a.c", &out));
	assert_true(put(&m, LOG_MARKUP_ERROR, "::error file=a.c,line=3,col=7,title=No%3A::one%0Atwo", &out));
	assert_true(put(&m, LOG_MARKUP_WARNING, "##[warning]w", &out));
	assert_false(put(&m, LOG_MARKUP_ADD_MASK, "::add-mask::***", &out));
	assert_false(put(&m, LOG_MARKUP_ENDGROUP, "::endgroup::", &out));
	assert_true(put(&m, LOG_MARKUP_NOTICE, "::notice file=b.c,col=7::n", &out));
	assert_true(put(&m, LOG_MARKUP_DEBUG, "::debug::d", &out));
	assert_false(put(&m, LOG_MARKUP_STOP, "::stop-commands::t", &out));
	/* What is text stays text, whatever it looks like. */
	assert_true(put(&m, LOG_MARKUP_NONE, "::error::not one", &out));
	assert_false(put(&m, LOG_MARKUP_RESUME, "::t::", &out));
	assert_string_equal(out.data, "before\n\xe2\x96\xbe Build it\n  cc a.c\n"
				      "  error: a.c:3:7: No:: one\n  two\n  warning: w\n"
				      "notice: b.c: n\ndebug: d\n::error::not one\n");
}

static void nothing_steers_the_terminal(void **state)
{
	(void)state;
	static const char *const hostile[] = {"::error file=\x1b[2J,title=%0D\x1b]0;x\x07::\x1b[31m%0A\x1b[H",
					      "::***::x", "::group::\x1b[1m\x9b", ""};

	for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
		for (int m = LOG_MARKUP_GROUP; m < LOG_MARKUP_COUNT; m++) {
			struct markup state_of = {0};
			autovar(buf) out = {0};

			(void)put(&state_of, (enum log_markup)m, hostile[i], &out);
			assert_null(out.data != NULL ? strpbrk(out.data, "\x1b\x07\r") : NULL);
		}
	}
}

static void errors_are_red_where_there_are_colours(void **state)
{
	(void)state;
	autovar(buf) out = {0};

	markup_put_annotation(&coloured, LOG_MARKUP_ERROR, STR("::error::x"), &out);
	assert_string_equal(out.data, "\x1b[31merror: x\x1b[0m");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_log_is_shown_in_its_groups),
		cmocka_unit_test(nothing_steers_the_terminal),
		cmocka_unit_test(errors_are_red_where_there_are_colours),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
