#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/http_forwarded.h"

enum { LINES_MAX = 3 };

static const char *const trusted[] = {"10.0.0.0/8", "2001:db8::/32", "unix"};

static void the_last_address_that_is_no_proxy_asks(void **state)
{
	static const struct {
		const char *peer; /* NULL: a unix socket */
		const char *lines[LINES_MAX];
		const char *proto;
		const char *asks; /* NULL: it cannot be read */
		bool https;
	} cases[] = {
		{"192.0.2.1", {"198.51.100.1"}, "https", "192.0.2.1", false},
		{"10.0.0.1", {"198.51.100.1"}, "https", "198.51.100.1", true},
		{"10.0.0.1", {"6.6.6.6, 198.51.100.1"}, "http", "198.51.100.1", false},
		{"10.0.0.1", {"6.6.6.6,198.51.100.1 , 10.0.0.2"}, NULL, "198.51.100.1", false},
		{"10.0.0.1", {"6.6.6.6", "198.51.100.1", "10.0.0.2"}, NULL, "198.51.100.1", false},
		{"10.0.0.1", {"nonsense, 198.51.100.1"}, NULL, "198.51.100.1", false},
		{"10.0.0.1", {"10.0.0.3, 10.0.0.2"}, NULL, "10.0.0.3", false},
		{"10.0.0.1", {"198.51.100.1:1234"}, NULL, "198.51.100.1", false},
		{"10.0.0.1", {"[2001:db9::1]:1234"}, NULL, "2001:db9::1", false},
		{"10.0.0.1", {"[2001:db9::1]"}, NULL, "2001:db9::1", false},
		{"10.0.0.1", {"2001:db9::1"}, NULL, "2001:db9::1", false},
		{"2001:db8::5", {"::ffff:198.51.100.1,"}, "HTTPS", "198.51.100.1", true},
		{NULL, {"198.51.100.1"}, "http, https", "198.51.100.1", true},
		{NULL, {NULL}, "https", NULL, true},
		{"10.0.0.1", {NULL}, NULL, "10.0.0.1", false},
		{"10.0.0.1", {""}, NULL, "10.0.0.1", false},
		{"10.0.0.1", {"unknown"}, NULL, NULL, false},
		{"10.0.0.1", {"198.51.100.1, _hidden"}, NULL, NULL, false},
		{"10.0.0.1", {"198.51.100.1"}, "gopher", NULL, false},
		{"10.0.0.1", {"198.51.100.1"}, "", NULL, false},
	};
	autovar(cidr_list) proxies = {0};

	(void)state;
	assert_int_equal(cidr_list_parse(trusted, ARRAY_LEN(trusted), "X", &proxies, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_origin origin = {.unix_peer = cases[i].peer == NULL};
		struct http_forwarded f = {.for_lines = cases[i].lines,
					   .proto_lines = &cases[i].proto,
					   .proto_count = cases[i].proto != NULL};
		char text[ADDRESS_TEXT_MAX] = "";
		while (f.for_count < LINES_MAX && cases[i].lines[f.for_count] != NULL)
			f.for_count++;
		if (cases[i].peer != NULL)
			assert_int_equal(address_parse(str_c(cases[i].peer), &origin.address, NULL), 0);
		int rc = http_forwarded_resolve(&f, &proxies, &origin, NULL);
		bool known = rc == 0 && !origin.unix_peer;
		if (known)
			address_write(&origin.address, text);
		if (known != (cases[i].asks != NULL) || (known && strcmp(text, cases[i].asks) != 0) ||
		    origin.https != cases[i].https)
			fail_msg("case %zu: %d %s", i, rc, text);
	}
}

static void without_proxies_nothing_is_believed(void **state)
{
	const char *const line = "198.51.100.1";
	const char *const proto = "https";
	const struct http_forwarded f = {&line, 1, &proto, 1};
	struct http_origin origin = {0};
	autovar(cidr_list) none = {0};

	(void)state;
	assert_int_equal(address_parse(STR("127.0.0.1"), &origin.address, NULL), 0);
	assert_int_equal(http_forwarded_resolve(&f, NULL, &origin, NULL), 0);
	assert_int_equal(http_forwarded_resolve(&f, &none, &origin, NULL), 0);
	assert_true(address_is_loopback(&origin.address));
	assert_false(origin.https);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_address_that_is_no_proxy_asks),
		cmocka_unit_test(without_proxies_nothing_is_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
