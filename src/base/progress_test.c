#include "base/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

static void sizes_have_the_unit_that_fits(void **state)
{
	(void)state;
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 bytes"},		 {1023, "1023 bytes"},	     {1024, "1.0 KiB"},
		{1932735283, "1.8 GiB"}, {1ULL << 50, "1024.0 TiB"}, {UINT64_MAX, "16777216.0 TiB"},
	};
	char text[SIZE_TEXT];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_string_equal(size_text(cases[i].bytes, text), cases[i].text);
}

static void a_line_says_how_far_how_fast_and_how_long(void **state)
{
	(void)state;
	static const struct {
		uint64_t total, done;
		int64_t elapsed_ns;
		const char *line;
	} cases[] = {
		{100 << 20, 25 << 20, NS_PER_S,
		 "sending [######                  ]  25 % 25.0 MiB, 25.0 MiB/s, 3 s left"},
		{100, 100, NS_PER_S, "sending [########################] 100 % 100 bytes, 100 bytes/s"},
		{100, 200, NS_PER_S, "sending [########################] 100 % 200 bytes, 200 bytes/s"},
		{0, 2048, 2 * NS_PER_S, "sending 2.0 KiB, 1.0 KiB/s"},
		{100, 0, 0, "sending [                        ]   0 % 0 bytes, 0 bytes/s"},
	};
	char line[PROGRESS_LINE];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct progress p = {.what = "sending", .total = cases[i].total};
		progress_line(&p, cases[i].done, cases[i].elapsed_ns, line);
		assert_string_equal(line, cases[i].line);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_have_the_unit_that_fits),
		cmocka_unit_test(a_line_says_how_far_how_fast_and_how_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
