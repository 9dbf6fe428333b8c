#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/http_route.h"

/* segments joined by '|', then '?' and the query as name=value joined by '&' */
static void describe(const struct http_target *target, struct buf *out)
{
	for (size_t i = 0; i < target->segment_count; i++)
		buf_printf(out, "%s%s", i > 0 ? "|" : "", target->segments[i]);
	for (size_t i = 0; i < target->query_count; i++)
		buf_printf(out, "%c%s=%s", i > 0 ? '&' : '?', target->query[i].name, target->query[i].value);
	buf_putc(out, '\0');
}

static void targets_are_taken_apart(void **state)
{
	static const struct {
		const char *raw;
		const char *expected; /* NULL: refused */
	} cases[] = {
		{"/", ""},
		{"//", ""},
		{"", ""},
		{"/a/b", "a|b"},
		{"//a///b/", "a|b"},
		{"/a%20b/%41", "a b|A"},
		{"/a%2Fb", "a/b"},
		{"/a+b", "a+b"},
		{"/x?a=1&b=two+words&c", "x?a=1&b=two words&c="},
		{"/x?a=%3D%26&&=5&b=c=d", "x?a==&&b=c=d"},
		{"/x?", "x"},
		{"/x?a=/../..", "x?a=/../.."},
		{"http://host:80/a/b?c=d", "a|b?c=d"},
		{"HTTPS://host", ""},
		{"http://host?q=1", "?q=1"},
		{"/%C3%A9", "\xc3\xa9"},
		{"/%", NULL},
		{"/%4", NULL},
		{"/%4g", NULL},
		{"/%00", NULL},
		{"/a?b=%00", NULL},
		{"/%ff", NULL},
		{"/a?%ff=1", NULL},
		{"/a/../b", NULL},
		{"/a/%2e%2e/b", NULL},
		{"/./a", NULL},
		{"a/b", NULL},
		{"*", NULL},
		{"/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) arena = arena_new();
		autovar(buf) text = {0};
		struct http_target target = {0};
		struct err err = {0};
		int rc = http_target_parse(str_c(cases[i].raw), arena, &target, &err);
		if (cases[i].expected == NULL) {
			assert_int_equal(rc, -ERR_INVALID);
			continue;
		}
		assert_int_equal(rc, 0);
		describe(&target, &text);
		assert_string_equal(text.data, cases[i].expected);
	}
}

static void too_many_parameters_are_refused(void **state)
{
	autoptr(arena) arena = arena_new();
	autovar(buf) raw = {0};
	struct http_target target = {0};
	struct err err = {0};

	(void)state;
	buf_puts(&raw, "/?");
	for (int i = 0; i < HTTP_QUERY_MAX; i++)
		buf_puts(&raw, "a&");
	assert_int_equal(http_target_parse(buf_str(&raw), arena, &target, &err), 0);
	buf_puts(&raw, "a");
	assert_int_equal(http_target_parse(buf_str(&raw), arena, &target, &err), -ERR_INVALID);
}

static const struct http_route routes[] = {
	{"GET", "/"},	       {"GET", "/api/jobs/recent"},  {"GET", "/api/jobs/{id}"},
	{"POST", "/api/jobs"}, {"DELETE", "/api/jobs/{id}"}, {"POST", "/api/jobs/{id}/steps/{step}"},
};

static void routes_are_found(void **state)
{
	static const struct {
		const char *method;
		const char *raw;
		int rc;
		int route;
		const char *allow;
		const char *params;
	} cases[] = {
		{"GET", "/", 0, 0, "", ""},
		{"HEAD", "/", 0, 0, "", ""},
		{"GET", "/api/jobs/recent", 0, 1, "", ""},
		{"GET", "/api//jobs/7", 0, 2, "", "id=7 "},
		{"POST", "/api/jobs/", 0, 3, "", ""},
		{"DELETE", "/api/jobs/recent", 0, 4, "", "id=recent "},
		{"POST", "/api/jobs/a%2Fb/steps/c", 0, 5, "", "id=a/b step=c "},
		{"PUT", "/api/jobs/7", -ERR_METHOD_NOT_ALLOWED, 0, "GET, HEAD, DELETE", ""},
		{"POST", "/", -ERR_METHOD_NOT_ALLOWED, 0, "GET, HEAD", ""},
		{"GET", "/api/jobs", -ERR_METHOD_NOT_ALLOWED, 0, "POST", ""},
		{"get", "/", -ERR_METHOD_NOT_ALLOWED, 0, "GET, HEAD", ""},
		{"GET", "/api", -ERR_NOT_FOUND, 0, "", ""},
		{"GET", "/api/jobs/7/steps", -ERR_NOT_FOUND, 0, "", ""},
		{"GET", "/API/jobs/7", -ERR_NOT_FOUND, 0, "", ""},
		{"GET", "/api/jobs/7/8/9/10", -ERR_NOT_FOUND, 0, "", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) arena = arena_new();
		autovar(buf) allow = {0};
		autovar(buf) params = {0};
		struct http_target target = {0};
		struct http_match match = {0};
		struct err err = {0};
		assert_int_equal(http_target_parse(str_c(cases[i].raw), arena, &target, &err), 0);
		int rc = http_route_match(routes, ARRAY_LEN(routes), cases[i].method, &target, &match, &allow, &err);
		assert_int_equal(rc, cases[i].rc);
		if (rc == -ERR_METHOD_NOT_ALLOWED)
			assert_string_equal(allow.data, cases[i].allow);
		if (rc < 0)
			continue;
		assert_ptr_equal(match.route, &routes[cases[i].route]);
		for (size_t k = 0; k < match.param_count; k++)
			buf_printf(&params, "%.*s=%s ", STR_ARG(match.params[k].name), match.params[k].value);
		buf_putc(&params, '\0');
		assert_string_equal(params.data, cases[i].params);
	}
}

static void request_ids_are_judged(void **state)
{
	static const char longest[] = "0123456789012345678901234567890123456789012345678901234567890123";

	(void)state;
	assert_true(http_request_id_sane(STR("a-B_9.x")));
	assert_true(http_request_id_sane(STR(longest)));
	assert_false(http_request_id_sane(STR("")));
	assert_false(http_request_id_sane(STR("a b")));
	assert_false(http_request_id_sane(STR("a\nb")));
	assert_false(http_request_id_sane(STR("a\0b")));
	assert_false(http_request_id_sane(STR("\xc3\xa9")));
	assert_false(http_request_id_sane(STR("01234567890123456789012345678901234567890123456789012345678901234")));
}

static void bearers_are_found(void **state)
{
	static const struct {
		const char *header;
		const char *token;
	} cases[] = {
		{"Bearer abc", "abc"}, {"bearer  abc ", "abc"}, {"BEARER a.b-c", "a.b-c"}, {"Bearer", NULL},
		{"Bearer ", NULL},     {"Bearer    ", NULL},	{"Basic abc", NULL},	   {"", NULL},
		{"Bearerabc", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct str token = http_bearer_parse(str_c(cases[i].header));
		if (cases[i].token == NULL)
			assert_null(token.data);
		else
			assert_true(str_eq(token, str_c(cases[i].token)));
	}
	assert_null(http_bearer_parse(str_c(NULL)).data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(targets_are_taken_apart), cmocka_unit_test(too_many_parameters_are_refused),
		cmocka_unit_test(routes_are_found),	   cmocka_unit_test(request_ids_are_judged),
		cmocka_unit_test(bearers_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
