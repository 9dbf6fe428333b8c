#include "model/labels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"

static struct label_set make(struct arena *a, const char *const *labels, size_t count)
{
	struct label_set set = {0};
	assert_int_equal(label_set_make(labels, count, a, &set, NULL), 0);
	return set;
}

static void a_set_is_sorted_lower_case_and_single(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	const char *const labels[] = {"self-hosted", "Nimbus", "cpu-high", "nimbus"};
	struct label_set set = make(a, labels, ARRAY_LEN(labels));

	assert_string_equal(label_set_key(&set, a), "cpu-high,nimbus,self-hosted");
	assert_true(label_set_has(&set, "nimbus"));
	assert_false(label_set_has(&set, "gpu"));
}

static void a_key_gives_its_set_again(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	struct label_set set = {0};
	static const char *const keys[] = {"", "a", "a,b", "image:x/y:1,param:k=v"};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		assert_int_equal(label_set_from_key(str_c(keys[i]), a, &set, NULL), 0);
		assert_string_equal(label_set_key(&set, a), keys[i]);
	}
}

static void an_offer_must_hold_every_wanted_label(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	const char *const offered[] = {"big", "fast"};
	const char *const all[] = {"Fast", "nimbus"};
	const char *const more[] = {"nimbus", "gpu"};
	const char *const usual[] = {"self-hosted", "Linux", "X64", "nimbus"};
	struct label_set offer = make(a, offered, 2);
	struct label_set ok = make(a, all, 2);
	struct label_set not_ok = make(a, more, 2);
	struct label_set as_github_writes_it = make(a, usual, ARRAY_LEN(usual));
	struct label_set none = {0};

	assert_true(label_set_covers(&none, &as_github_writes_it));
	assert_true(label_set_covers(&offer, &ok));
	assert_false(label_set_covers(&offer, &not_ok));
	assert_true(label_set_covers(&none, &none));
	assert_false(label_set_covers(&none, &offer));
}

static void malformed_labels_are_refused_by_name(void **state)
{
	(void)state;
	autofree char *longest = xmalloc(LABEL_MAX_BYTES + 1);
	memset(longest, 'x', LABEL_MAX_BYTES + 1);
	const struct str bad[] = {
		STR(""),    STR(" a"),	     STR("a "),
		STR("a,b"), STR("a\nb"),     STR("\x7f"),
		STR("\0"),  STR("\xff\xfe"), {longest, LABEL_MAX_BYTES + 1},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err err = {0};
		assert_int_equal(label_check(bad[i], &err), -ERR_INVALID_FIELD);
		assert_ptr_equal(strstr(err.msg, "labels: "), err.msg);
	}
	assert_int_equal(label_check((struct str){longest, LABEL_MAX_BYTES}, NULL), 0);
	assert_int_equal(label_check(STR("gr\xc3\xbc\xc3\x9f"), NULL), 0);
}

static void too_many_labels_are_refused(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	const char *labels[LABEL_SET_MAX + 1];
	struct label_set set = {0};

	for (size_t i = 0; i < ARRAY_LEN(labels); i++)
		labels[i] = "x";
	assert_int_equal(label_set_make(labels, ARRAY_LEN(labels), a, &set, NULL), -ERR_INVALID_FIELD);
	assert_int_equal(label_set_make(labels, LABEL_SET_MAX, a, &set, NULL), 0);
	assert_int_equal(set.count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_set_is_sorted_lower_case_and_single),
		cmocka_unit_test(a_key_gives_its_set_again),
		cmocka_unit_test(an_offer_must_hold_every_wanted_label),
		cmocka_unit_test(malformed_labels_are_refused_by_name),
		cmocka_unit_test(too_many_labels_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
