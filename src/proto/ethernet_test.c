#include "proto/ethernet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

enum { GUEST = 0x0a00020f, SIZE = 42 };

static struct str frame_to(char bytes[static SIZE], uint32_t target)
{
	static const char head[] = "\2\1\1\1\1\1\2\2\2\2\2\2\x08\x00\x45\0\0\x1c\0\0\0\0\x40\x11\0\0\x0a\0\2\x0f";

	memset(bytes, 0, SIZE);
	memcpy(bytes, head, sizeof(head) - 1);
	for (int i = 0; i < 4; i++)
		bytes[30 + i] = (char)(target >> (24 - 8 * i));
	return (struct str){bytes, SIZE};
}

static void only_other_machines_are_spoken_to(void **state)
{
	static const struct {
		uint32_t target;
		bool allowed;
	} cases[] = {
		{0x08080808, true},  {0x0a000202, true},  {0xc0a80101, true},  {0xa9fea9fe, true},  {0x7e000001, true},
		{0x80000001, true},  {0x7f000001, false}, {0x7f000035, false}, {0x7fffffff, false}, {0x00000000, false},
		{0x00000001, false}, {0xe0000001, false}, {0xffffffff, false}, {0xf0000001, false},
	};
	char bytes[SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(ethernet_allowed(frame_to(bytes, cases[i].target), GUEST), cases[i].allowed);
}

static void what_is_not_plain_ipv4_of_the_guest_is_dropped(void **state)
{
	char bytes[SIZE];
	struct str frame = frame_to(bytes, 0x08080808);

	(void)state;
	for (size_t len = 0; len < 34; len++)
		assert_false(ethernet_allowed((struct str){bytes, len}, GUEST));
	assert_false(ethernet_allowed(frame, GUEST + 1)); /* another's address */
	bytes[14] = 0x65;
	assert_false(ethernet_allowed(frame, GUEST));
	(void)frame_to(bytes, 0x08080808);
	bytes[12] = (char)0x86, bytes[13] = (char)0xdd; /* IPv6 */
	assert_false(ethernet_allowed(frame, GUEST));
	bytes[12] = (char)0x81, bytes[13] = 0; /* a tag before the type */
	assert_false(ethernet_allowed(frame, GUEST));
	bytes[12] = 8, bytes[13] = 6; /* ARP */
	assert_true(ethernet_allowed(frame, GUEST));
}

static void frames_are_cut_from_the_stream(void **state)
{
	static const char bytes[] = "\0\0\0\3abc\0\0\0\1d\0\0";
	struct str rest = {bytes, sizeof(bytes) - 1}, frame = {NULL, 0};

	(void)state;
	assert_int_equal(ethernet_next(rest, &frame, NULL), 1);
	assert_true(str_eq(frame, STR("abc")));
	rest = (struct str){bytes + 7, sizeof(bytes) - 8};
	assert_int_equal(ethernet_next(rest, &frame, NULL), 1);
	assert_true(str_eq(frame, STR("d")));
	rest = (struct str){bytes + 12, 2};
	assert_int_equal(ethernet_next(rest, &frame, NULL), 0);
	assert_int_equal(ethernet_next((struct str){bytes, 6}, &frame, NULL), 0);
	assert_int_equal(ethernet_next(STR("\0\0\0\0"), &frame, NULL), -ERR_INVALID);
	assert_int_equal(ethernet_next(STR("\0\1\x10\1"), &frame, NULL), -ERR_INVALID);
	assert_int_equal(ethernet_next(STR("\xff\xff\xff\xff"), &frame, NULL), -ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_other_machines_are_spoken_to),
		cmocka_unit_test(what_is_not_plain_ipv4_of_the_guest_is_dropped),
		cmocka_unit_test(frames_are_cut_from_the_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
