#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/str.h"

/* RFC 3720, B.4; the check value of the catalogue for "123456789". */
static void known_values(void **state)
{
	(void)state;
	unsigned char bytes[32] = {0};
	const struct {
		struct str text;
		uint32_t crc;
	} cases[] = {{STR(""), 0}, {STR("123456789"), 0xe3069283}};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(crc32c(0, cases[i].text.data, cases[i].text.len), cases[i].crc);
	assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
	memset(bytes, 0xff, 32);
	assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
	for (size_t i = 0; i < 32; i++)
		bytes[i] = (unsigned char)i;
	assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
	for (size_t i = 0; i < 32; i++)
		bytes[i] = (unsigned char)(31 - i);
	assert_int_equal(crc32c(0, bytes, 32), 0x113fdb5c);
}

static void pieces_give_the_same_as_the_whole(void **state)
{
	(void)state;
	unsigned char bytes[61];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 37);
	uint32_t whole = crc32c(0, bytes, sizeof(bytes));
	assert_int_equal(crc32c_portable(0, bytes, sizeof(bytes)), whole);
	for (size_t cut = 0; cut <= sizeof(bytes); cut++)
		assert_int_equal(crc32c(crc32c(0, bytes, cut), bytes + cut, sizeof(bytes) - cut), whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(pieces_give_the_same_as_the_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
