#include "proto/ethernet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

enum { SIZE = 42 };

static const struct ethernet_guest guest = {.mac = {2, 2, 2, 2, 2, 2}, .address = 0x0a00020f};

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
		{0x08080808, true},  {0x0a000202, true},  {0xc0a80101, true},  {0xa9ffa9fe, true},  {0x7e000001, true},
		{0x80000001, true},  {0x7f000001, false}, {0x7f000035, false}, {0x7fffffff, false}, {0x00000000, false},
		{0x00000001, false}, {0xe0000001, false}, {0xffffffff, false}, {0xf0000001, false}, {0xa9fea9fe, false},
		{0xa9fe0000, false}, {0xa9feffff, false}, {0xa9fdffff, true},  {0xa9ff0000, true},  {0xa83f8110, false},
		{0xa83f8111, true},  {0xa83f810f, true},  {0x646464c8, false}, {0x646464c9, true},  {0xc00000c0, false},
		{0xc00000c1, true},  {0xdfffffff, true},  {0x01000000, true},  {0x00ffffff, false},
	};
	char bytes[SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(ethernet_allowed(frame_to(bytes, cases[i].target), &guest), cases[i].allowed);
}

static void what_is_not_plain_ipv4_of_the_guest_is_dropped(void **state)
{
	char bytes[SIZE];
	struct str frame = frame_to(bytes, 0x08080808);

	(void)state;
	for (size_t len = 0; len < 34; len++)
		assert_false(ethernet_allowed((struct str){bytes, len}, &guest));
	bytes[29] = 16; /* another's address */
	assert_false(ethernet_allowed(frame, &guest));
	(void)frame_to(bytes, 0x08080808);
	bytes[11] = 3; /* another's hardware address: a template's, say */
	assert_false(ethernet_allowed(frame, &guest));
	(void)frame_to(bytes, 0x08080808);
	bytes[14] = 0x65;
	assert_false(ethernet_allowed(frame, &guest));
	(void)frame_to(bytes, 0x08080808);
	bytes[12] = (char)0x86, bytes[13] = (char)0xdd; /* IPv6 */
	assert_false(ethernet_allowed(frame, &guest));
	bytes[12] = (char)0x81, bytes[13] = 0; /* a tag before the type */
	assert_false(ethernet_allowed(frame, &guest));
}

static void only_the_guests_own_arp_is_passed_on(void **state)
{
	static const char question[SIZE] = "\xff\xff\xff\xff\xff\xff\2\2\2\2\2\2\x08\x06\0\1\x08\0\6\4\0\1\2\2\2\2\2\2"
					   "\x0a\0\2\x0f\0\0\0\0\0\0\x0a\0\2\2";
	static const struct {
		size_t at;
		char is;
		bool allowed;
	} cases[] = {
		{SIZE - 1, 9, true}, {6, 4, false}, {22, 4, false}, {27, 4, false}, {31, 16, false}, {28, 0, false},
	};
	char bytes[SIZE];

	(void)state;
	assert_true(ethernet_allowed((struct str){question, SIZE}, &guest));
	assert_false(ethernet_allowed((struct str){question, SIZE - 1}, &guest));
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		memcpy(bytes, question, SIZE);
		bytes[cases[i].at] = cases[i].is;
		assert_int_equal(ethernet_allowed((struct str){bytes, SIZE}, &guest), cases[i].allowed);
	}
	memcpy(bytes, question, SIZE);
	memset(bytes + 28, 0, 4);
	assert_true(ethernet_allowed((struct str){bytes, SIZE}, &guest));
}

static uint32_t sum(const char *at, size_t len)
{
	uint32_t value = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		value += (uint32_t)((unsigned char)at[i] << 8 | (unsigned char)at[i + 1]);
	return (value & 0xffff) + (value >> 16);
}

static void who_asks_for_what_is_kept_back_is_told(void **state)
{
	char bytes[SIZE];
	autovar(buf) out = {0};

	(void)state;
	ethernet_refuse(frame_to(bytes, 0xa9fea9fe), &guest, &out);
	assert_int_equal(out.len, 4 + 14 + 20 + 8 + 28);
	assert_memory_equal(out.data, "\0\0\0\x46\2\2\2\2\2\2\2\1\1\1\1\1\x08\0\x45\0\0\x38", 22);
	assert_memory_equal(out.data + 30, "\xa9\xfe\xa9\xfe\x0a\0\2\x0f\3\x0d", 10);
	assert_memory_equal(out.data + 46, bytes + 14, 28);
	assert_int_equal(sum(out.data + 18, 20), 0xffff);
	assert_int_equal(sum(out.data + 38, 36), 0xffff);
}

static void nobody_else_is_told_anything(void **state)
{
	static const struct {
		size_t at;
		char is;
	} cases[] = {
		{6, 4},			/* another's hardware address */
		{12, 9},		/* not IPv4 */
		{14, 0x65}, {14, 0x44}, /* a header that is none */
		{14, 0x4f},		/* one that is longer than the frame */
		{21, 1},		/* a later piece */
		{23, 1},		/* ICMP */
		{29, 16},		/* another's address */
		{30, 127},		/* the loopback */
		{30, 0},    {30, (char)224}, {30, 8},
	};
	char bytes[SIZE];
	autovar(buf) out = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		(void)frame_to(bytes, 0xa9fea9fe);
		bytes[cases[i].at] = cases[i].is;
		ethernet_refuse((struct str){bytes, SIZE}, &guest, &out);
		assert_int_equal(out.len, 0);
	}
	(void)frame_to(bytes, 0xa9fea9fe);
	for (size_t len = 0; len < SIZE; len++)
		ethernet_refuse((struct str){bytes, len}, &guest, &out);
	assert_int_equal(out.len, 0);
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
		cmocka_unit_test(only_the_guests_own_arp_is_passed_on),
		cmocka_unit_test(who_asks_for_what_is_kept_back_is_told),
		cmocka_unit_test(nobody_else_is_told_anything),
		cmocka_unit_test(frames_are_cut_from_the_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
