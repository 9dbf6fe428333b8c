#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
static void it_grows_and_stays_terminated(void **state)
{
	(void)state;
	autovar(buf) b = {0};

	assert_int_equal(buf_str(&b).len, 0);
	for (int i = 0; i < 1000; i++) {
		buf_printf(&b, "%d,", i % 10);
		assert_int_equal(b.data[b.len], '\0');
	}
	assert_int_equal(b.len, 2000);
	buf_clear(&b);
	assert_string_equal(b.data, "");
	buf_puts(&b, "ab");
	buf_putc(&b, 'c');
	buf_append_str(&b, STR("de"));
	buf_append(&b, NULL, 0);
	assert_string_equal(b.data, "abcde");
}

static void consuming_drops_the_front(void **state)
{
	(void)state;
	autovar(buf) b = {0};

	buf_consume(&b, 0);
	buf_puts(&b, "abcdef");
	buf_consume(&b, 2);
	assert_string_equal(b.data, "cdef");
	buf_consume(&b, 4);
	assert_int_equal(b.len, 0);
}

static void numbers_are_little_endian(void **state)
{
	(void)state;
	autovar(buf) b = {0};
	static const unsigned char expected[] = {2, 1, 6, 5, 4, 3, 8, 7, 6, 5, 4, 3, 2, 1};

	buf_put_u16(&b, 0x0102);
	buf_put_u32(&b, 0x03040506);
	buf_put_u64(&b, 0x0102030405060708);
	assert_int_equal(b.len, sizeof(expected));
	assert_memory_equal(b.data, expected, sizeof(expected));
}

static void taking_leaves_it_empty(void **state)
{
	(void)state;
	autovar(buf) b = {0};
	autofree char *nothing = buf_take(&b);

	buf_puts(&b, "x");
	autofree char *text = buf_take(&b);
	assert_string_equal(nothing, "");
	assert_string_equal(text, "x");
	assert_null(b.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_grows_and_stays_terminated),
		cmocka_unit_test(consuming_drops_the_front),
		cmocka_unit_test(numbers_are_little_endian),
		cmocka_unit_test(taking_leaves_it_empty),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
