#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/cidr.h"

static void networks_have_what_is_in_them(void **state)
{
	static const struct {
		const char *cidr;
		const char *address;
		bool in;
	} cases[] = {
		{"10.0.0.0/8", "10.255.1.2", true},
		{"10.0.0.0/8", "11.0.0.0", false},
		{"192.0.2.128/25", "192.0.2.128", true},
		{"192.0.2.128/25", "192.0.2.127", false},
		{"192.0.2.7", "192.0.2.7", true},
		{"192.0.2.7", "192.0.2.6", false},
		{"0.0.0.0/0", "203.0.113.9", true},
		{"0.0.0.0/0", "2001:db8::1", false},
		{"::/0", "2001:db8::1", true},
		{"::/0", "203.0.113.9", true},
		{"2001:db8::/32", "2001:db8:ffff::1", true},
		{"2001:db8::/32", "2001:db9::1", false},
		{"10.0.0.0/8", "::ffff:10.1.2.3", true},
		{"::ffff:10.0.0.0/104", "10.1.2.3", true},
		{"::1", "::1", true},
		{"::1", "127.0.0.1", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct cidr c = {0};
		struct address a = {0};
		assert_int_equal(cidr_parse(str_c(cases[i].cidr), &c, NULL), 0);
		assert_int_equal(address_parse(str_c(cases[i].address), &a, NULL), 0);
		if (cidr_has(&c, &a) != cases[i].in)
			fail_msg("%s in %s", cases[i].address, cases[i].cidr);
	}
}

static void what_is_no_network_is_refused(void **state)
{
	static const char *const texts[] = {"",
					    "10",
					    "10.0.0.0/",
					    "10.0.0.0/33",
					    "10.0.0.0/-1",
					    "10.0.0.0/8/8",
					    "10.0.0.1/8",
					    "256.0.0.0/8",
					    "::/129",
					    "::1/64",
					    "fe80::1%lo",
					    "localhost",
					    "10.0.0.0 /8",
					    "0x0a.0.0.0/8",
					    "10.0.0.0/+8",
					    "[::1]/128",
					    "010.0.0.0/8"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct cidr c = {0};
		if (cidr_parse(str_c(texts[i]), &c, NULL) != -ERR_INVALID)
			fail_msg("'%s' was taken", texts[i]);
	}
}

static void a_list_knows_networks_and_unix(void **state)
{
	const char *const texts[] = {"10.0.0.0/8", "unix", "::1"};
	const char *const bad[] = {"10.0.0.0/8", "nonsense"};
	autovar(cidr_list) list = {0};
	autovar(cidr_list) none = {0};
	struct address a = {0};
	struct err err = {0};
	char text[ADDRESS_TEXT_MAX];

	(void)state;
	assert_int_equal(cidr_list_parse(texts, ARRAY_LEN(texts), "X", &list, NULL), 0);
	assert_int_equal(list.count, 2);
	assert_true(list.unix_peers);
	assert_int_equal(address_parse(STR("::ffff:10.9.8.7"), &a, NULL), 0);
	assert_true(cidr_list_has(&list, &a));
	assert_false(address_is_loopback(&a));
	address_write(&a, text);
	assert_string_equal(text, "10.9.8.7");
	assert_int_equal(cidr_list_parse(bad, ARRAY_LEN(bad), "NIMBUS_X", &none, &err), -ERR_INVALID);
	assert_string_equal(err.msg, "NIMBUS_X: 'nonsense' is not an address");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(networks_have_what_is_in_them),
		cmocka_unit_test(what_is_no_network_is_refused),
		cmocka_unit_test(a_list_knows_networks_and_unix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
