#include "logs/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"

/* What needle_find() has to agree with. */
static const char *find_slowly(const char *hay, size_t len, const struct needle *n)
{
	for (size_t i = 0; i + n->text.len <= len; i++) {
		size_t same = 0;
		for (; same < n->text.len; same++) {
			char a = hay[i + same];
			char b = n->text.data[same];
			if (n->any_case && a >= 'A' && a <= 'Z')
				a = (char)(a + 32);
			if (n->any_case && b >= 'A' && b <= 'Z')
				b = (char)(b + 32);
			if (a != b)
				break;
		}
		if (same == n->text.len)
			return hay + i;
	}
	return NULL;
}

/* Every place and length around the width of a step, in memory that ends exactly there. */
static void a_needle_is_found_wherever_it_is(void **state)
{
	static const char *const texts[] = {"x", "Xy", "needle", "@[`{", "a needle longer than one step of sixteen"};

	(void)state;
	for (size_t t = 0; t < ARRAY_LEN(texts); t++) {
		size_t len = strlen(texts[t]);
		for (size_t size = 0; size < 70; size++) {
			for (size_t place = 0; place <= size; place++) {
				autofree char *hay = xmalloc(size + 1);
				for (size_t i = 0; i < size; i++)
					hay[i] = "xn@e"[(i * 7 + place) % 4];
				for (size_t i = 0; i < len && place + i < size; i++)
					hay[place + i] = texts[t][i];
				for (int any_case = 0; any_case < 2; any_case++) {
					const struct needle n = {str_c(texts[t]), any_case};
					const char *found = needle_find(&n, (struct str){hay, size});
					assert_ptr_equal(found, find_slowly(hay, size, &n));
				}
			}
		}
	}
}

static void cases_of_letters_only(void **state)
{
	static const struct {
		const char *text;
		const char *hay;
		bool any_case;
		bool found;
	} cases[] = {
		{"error", "An ERROR here", true, true},
		{"error", "An ERROR here", false, false},
		{"@", "`", true, false},
		{"[", "{", true, false},
		{"\xc4", "\xe4", true, false},
		{"", "", true, true},
		{"x", "", true, false},
		{"100%", "at 100% now", true, true},
		{"a%c", "abc", true, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct needle n = {str_c(cases[i].text), cases[i].any_case};
		assert_int_equal(needle_find(&n, str_c(cases[i].hay)) != NULL, cases[i].found);
	}
}

static void what_says_that_it_is_an_error(void **state)
{
	static const struct {
		const char *message;
		enum log_line_level level;
		bool error;
	} cases[] = {
		{"src/x.c:3: error: no", LOG_LINE_INFO, true},
		{"##[error]Process completed", LOG_LINE_INFO, true},
		{"::error file=a.c::no", LOG_LINE_INFO, true},
		{"ValueError: no", LOG_LINE_INFO, true},
		{"--- FAIL: TestX", LOG_LINE_INFO, true},
		{"Build FAILED", LOG_LINE_INFO, true},
		{"Traceback (most recent call last):", LOG_LINE_INFO, true},
		{"panic", LOG_LINE_INFO, true},
		{"error_count is set", LOG_LINE_INFO, false},
		{"errors handled", LOG_LINE_INFO, false},
		{"failsafe; then it is a failure", LOG_LINE_INFO, true},
		{"all is well", LOG_LINE_WARNING, false},
		{"all is well", LOG_LINE_ERROR, true},
		{"", LOG_LINE_INFO, false},
		{"", LOG_LINE_CRITICAL, true},
	};
	struct log_filter filter = LOG_FILTER_ALL;

	(void)state;
	filter.errors = true;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct log_line line = {.level = cases[i].level, .message = str_c(cases[i].message)};
		if (log_filter_passes(&filter, &line) != cases[i].error)
			fail_msg("%s", cases[i].message);
	}
}

static void bounds_of_a_filter(void **state)
{
	struct log_filter filter = LOG_FILTER_ALL;
	struct log_line line = {.timestamp = 100, .repo_id = 5, .level = LOG_LINE_WARNING, .message = STR("x")};

	(void)state;
	assert_false(log_filter_narrows(&filter));
	assert_true(log_filter_passes(&filter, &line));
	filter = (struct log_filter){.since_at = 100, .until_at = 101, .repo_id = 5, .level = LOG_LINE_WARNING};
	assert_true(log_filter_narrows(&filter));
	assert_true(log_filter_passes(&filter, &line));
	line.timestamp = 101;
	assert_false(log_filter_passes(&filter, &line));
	line.timestamp = 99;
	assert_false(log_filter_passes(&filter, &line));
	line.timestamp = 100;
	line.repo_id = 6;
	assert_false(log_filter_passes(&filter, &line));
	line.repo_id = 5;
	line.level = LOG_LINE_INFO;
	assert_false(log_filter_passes(&filter, &line));
}

static void annotations_are_what_was_announced(void **state)
{
	struct log_filter filter = LOG_FILTER_ALL;
	struct log_line line = {.level = LOG_LINE_ERROR, .message = STR("::error::x")};

	(void)state;
	filter.annotations = true;
	assert_true(log_filter_narrows(&filter));
	assert_false(log_filter_passes(&filter, &line));
	for (int m = LOG_MARKUP_NONE; m < LOG_MARKUP_COUNT; m++) {
		line.markup = (enum log_markup)m;
		assert_int_equal(log_filter_passes(&filter, &line), log_markup_annotates(line.markup));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_needle_is_found_wherever_it_is),   cmocka_unit_test(cases_of_letters_only),
		cmocka_unit_test(what_says_that_it_is_an_error),      cmocka_unit_test(bounds_of_a_filter),
		cmocka_unit_test(annotations_are_what_was_announced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
