#include "base/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void distances(void **state)
{
	(void)state;
	const struct {
		struct str a;
		struct str b;
		size_t distance;
	} cases[] = {
		{STR(""), STR(""), 0},	       {STR("abc"), STR(""), 3},	   {STR("abc"), STR("ABC"), 0},
		{STR("jbos"), STR("jobs"), 1}, {STR("kitten"), STR("sitting"), 3}, {STR("ab"), STR("ba"), 1},
		{STR("ca"), STR("abc"), 3},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(suggest_distance(cases[i].a, cases[i].b), cases[i].distance);
		assert_int_equal(suggest_distance(cases[i].b, cases[i].a), cases[i].distance);
	}
}

static const char *best(const char *given)
{
	struct suggest s = {.given = str_c(given)};

	suggest_offer(&s, "submit");
	suggest_offer(&s, "status");
	suggest_offer(&s, "show");
	return suggest_best(&s);
}

static void the_nearest_wins_if_it_is_near(void **state)
{
	(void)state;
	const struct suggest nothing = {.given = {"x", 1}};

	assert_string_equal(best("sumbit"), "submit");
	assert_string_equal(best("shwo"), "show");
	assert_null(best("x"));
	assert_null(best("zzzzzz"));
	assert_null(suggest_best(&nothing));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(distances),
		cmocka_unit_test(the_nearest_wins_if_it_is_near),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
