#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdalign.h>
#include <stdint.h>
static void memory_is_zeroed_and_aligned(void **state)
{
	(void)state;
	static const unsigned char zeros[20000];
	autoptr(arena) a = arena_new();
	static const size_t sizes[] = {0, 1, 7, 16, 4000, 8192, 20000, 3};

	for (size_t round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			unsigned char *p = arena_alloc(a, sizes[i]);
			assert_int_equal((uintptr_t)p % alignof(max_align_t), 0);
			assert_memory_equal(p, zeros, sizes[i]);
			memset(p, 0xff, sizes[i]);
		}
	}
}

static void texts_are_copied(void **state)
{
	(void)state;
	autoptr(arena) a = arena_new();
	char from[] = "abc";
	char *copy = arena_strdup(a, from);
	char *part = arena_str(a, (struct str){from, 2});

	from[0] = 'x';
	assert_string_equal(copy, "abc");
	assert_string_equal(part, "ab");
	assert_string_equal(arena_str(a, (struct str){NULL, 0}), "");
	assert_string_equal(arena_printf(a, "%s-%d", copy, 5), "abc-5");
}

static void freeing_none_is_fine(void **state)
{
	(void)state;
	arena_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_zeroed_and_aligned),
		cmocka_unit_test(texts_are_copied),
		cmocka_unit_test(freeing_none_is_fine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
