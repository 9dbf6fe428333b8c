#include "proto/dns_message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static const char plain[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\1a\2bc\0\x00\x01\x00\x01";
static const char edns[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\1a\2bc\0\x00\x01\x00\x01"
			   "\0\0\x29\x10\0\0\0\0\0\0\0";
#define OF(bytes) ((struct str){(bytes), sizeof(bytes) - 1})

static void queries_are_told_from_the_rest(void **state)
{
	char bytes[sizeof(plain)];

	(void)state;
	assert_true(dns_is_query(OF(plain)));
	assert_true(dns_is_query(OF(edns)));
	for (size_t len = 0; len < sizeof(plain) - 1; len++)
		assert_false(dns_is_query((struct str){plain, len}));
	static const struct {
		size_t at;
		char is;
	} bad[] = {{2, (char)0x81}, {2, 0x29}, {5, 2}, {5, 0}, {12, (char)0xc0}, {12, 60}};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		memcpy(bytes, plain, sizeof(bytes));
		bytes[bad[i].at] = bad[i].is;
		assert_false(dns_is_query(OF(bytes)));
	}
}

static void answers_are_of_their_question(void **state)
{
	char bytes[sizeof(plain)];

	(void)state;
	memcpy(bytes, plain, sizeof(bytes));
	assert_false(dns_is_answer(OF(bytes), OF(plain)));
	bytes[2] = (char)0x81;
	assert_true(dns_is_answer(OF(bytes), OF(plain)));
	bytes[1] = 0x35;
	assert_false(dns_is_answer(OF(bytes), OF(plain)));
	assert_false(dns_is_answer((struct str){bytes, 11}, OF(plain)));
}

static void what_is_too_long_is_marked_as_cut(void **state)
{
	char answer[2000] = "\x12\x34\x81\x80\x00\x01\x00\x09\x00\x08\x00\x07";
	autovar(buf) out = {0};

	(void)state;
	dns_fit((struct str){answer, 512}, OF(plain), &out);
	assert_int_equal(out.len, 512);
	buf_clear(&out);
	dns_fit((struct str){answer, 513}, OF(plain), &out);
	assert_int_equal(out.len, sizeof(plain) - 1);
	assert_memory_equal(out.data, "\x12\x34\x83\x80\x00\x01\x00\x00\x00\x00\x00\x00\1a\2bc\0\x00\x01\x00\x01",
			    out.len);
	buf_clear(&out);
	dns_fit((struct str){answer, 1232}, OF(edns), &out);
	assert_int_equal(out.len, 1232);
	buf_clear(&out);
	dns_fit((struct str){answer, 1233}, OF(edns), &out);
	assert_int_equal(out.len, sizeof(plain) - 1);
}

static void a_name_may_have_nothing_of_a_type(void **state)
{
	static const char query[] = "\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\1a\2bc\0\x00\x1c\x00\x01"
				    "\0\0\x29\x10\0\0\0\0\0\0\0";
	autovar(buf) out = {0};

	(void)state;
	assert_int_equal(dns_type(OF(plain)), 1);
	assert_int_equal(dns_type(OF(query)), DNS_TYPE_AAAA);
	dns_nothing(OF(query), &out);
	assert_int_equal(out.len, sizeof(plain) - 1);
	assert_memory_equal(out.data, "\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\1a\2bc\0\x00\x1c\x00\x01",
			    out.len);
	assert_true(dns_is_answer(buf_str(&out), OF(query)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(queries_are_told_from_the_rest),
		cmocka_unit_test(answers_are_of_their_question),
		cmocka_unit_test(what_is_too_long_is_marked_as_cut),
		cmocka_unit_test(a_name_may_have_nothing_of_a_type),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
