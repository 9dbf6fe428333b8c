/* What of a job's request gets through to a service, and as what. */
#include "shim/service_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static const struct service_call calls[] = {{"POST", "/logs"}, {"GET", "/logs/query"}};

static int rewrite(const char *head, struct str prefix, struct buf *out, struct service_request *ret, struct err *err)
{
	autoptr(secret) token = secret_new("T-1", 3);
	const struct service_target target = {
		.calls = calls, .count = ARRAY_LEN(calls), .host = STR("pipe:8002"), .prefix = prefix, .token = token};
	size_t size = 0;

	(void)buf_reserve(out, (size_t)4 * SERVICE_HEAD_MAX);
	int rc = service_head_size(str_c(head), &size, err);
	return rc == 0 ? service_head_rewrite(head, size, &target, out, ret, err) : rc;
}

static void the_token_is_added_and_the_jobs_own_is_not_passed(void **state)
{
	autovar(buf) out = {0};
	struct service_request request = {.length = -1};

	(void)state;
	assert_int_equal(rewrite("POST /logs?a=b HTTP/1.1\r\nHost: 127.0.0.1:8002\r\naUTHORIZATION: Bearer mine\r\n"
				 "Content-Type: application/json \r\nContent-Length: 12\r\nX-Forwarded-For: 1.2.3.4\r\n"
				 "Proxy-Authorization: x\r\nCookie: c\r\nX-Hop: 1\r\nConnection: keep-alive, x-hop\r\n"
				 "Expect: 100-continue\r\nUpgrade: h2c\r\nTE: trailers\r\nX-Request-Id: r1\r\n\r\n",
				 STR(""), &out, &request, NULL),
			 0);
	assert_int_equal(request.length, 12);
	assert_true(request.keep && !request.chunked);
	assert_true(str_eq(buf_str(&out), STR("POST /logs?a=b HTTP/1.1\r\nHost: pipe:8002\r\nConnection: keep-alive\r\n"
					      "Content-Length: 12\r\nContent-Type: application/json\r\n"
					      "Expect: 100-continue\r\n"
					      "X-Request-Id: r1\r\nAuthorization: Bearer T-1\r\n\r\n")));
}

static void an_old_client_gets_an_old_answer_and_a_prefix_stands_before_the_path(void **state)
{
	autovar(buf) out = {0};
	struct service_request request = {.length = -1};

	(void)state;
	assert_int_equal(rewrite("GET /logs/query HTTP/1.0\r\n\r\n", STR("/deep/er"), &out, &request, NULL), 0);
	assert_int_equal(request.length, 0);
	assert_false(request.keep);
	assert_true(str_eq(buf_str(&out), STR("GET /deep/er/logs/query HTTP/1.0\r\nHost: pipe:8002\r\n"
					      "Connection: close\r\nAuthorization: Bearer T-1\r\n\r\n")));
}

static void a_body_in_chunks_is_said_to_be_one(void **state)
{
	autovar(buf) out = {0};
	struct service_request request = {0};

	(void)state;
	assert_int_equal(rewrite("POST /logs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n"
				 "Trailer: Authorization\r\nConnection: CLOSE , x\r\nX: 1\r\n\r\n",
				 STR(""), &out, &request, NULL),
			 0);
	assert_true(request.chunked && !request.keep);
	assert_int_equal(request.length, 0);
	assert_true(str_eq(buf_str(&out), STR("POST /logs HTTP/1.1\r\nHost: pipe:8002\r\nConnection: close\r\n"
					      "Transfer-Encoding: chunked\r\nAuthorization: Bearer T-1\r\n\r\n")));
}

static void what_is_odd_or_not_on_the_list_is_refused(void **state)
{
#define HOST "Host: a\r\n\r\n"
	static const struct {
		const char *head;
		enum err_code code;
		const char *says;
	} cases[] = {
		{"GET /metrics HTTP/1.1\r\n" HOST, ERR_NOT_FOUND, "POST /logs, GET /logs/query"},
		{"GET /logs HTTP/1.1\r\n" HOST, ERR_NOT_FOUND, "calls of this service"},
		{"POST /logs/seal HTTP/1.1\r\n" HOST, ERR_NOT_FOUND, "calls of this service"},
		{"GET //logs/query HTTP/1.1\r\n" HOST, ERR_NOT_FOUND, "calls of this service"},
		{"GET /logs/query/../../metrics HTTP/1.1\r\n" HOST, ERR_NOT_FOUND, "calls of this service"},
		{"GET /logs%2fquery HTTP/1.1\r\n" HOST, ERR_NOT_FOUND, "calls of this service"},
		{"GET http://a/logs/query HTTP/1.1\r\n" HOST, ERR_NOT_FOUND, "calls of this service"},
		{"CONNECT 10.0.0.1:22 HTTP/1.1\r\n" HOST, ERR_NOT_FOUND, "calls of this service"},
		{"GET /logs/query\r\n\r\n", ERR_INVALID, "first line"},
		{"GET /logs/query HTTP/2.0\r\n" HOST, ERR_INVALID, "first line"},
		{"GET  /logs/query HTTP/1.1\r\n" HOST, ERR_INVALID, "first line"},
		{" GET /logs/query HTTP/1.1\r\n" HOST, ERR_INVALID, "first line"},
		{"\r\n\r\n", ERR_INVALID, "first line"},
		{"GET /logs/query HTTP/1.1\r\n\r\n", ERR_INVALID, "no Host header"},
		{"GET /logs/query HTTP/1.1\nHost: a\n\n", ERR_INVALID, "LF alone"},
		{"GET /logs/query HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", ERR_INVALID, "control characters"},
		{"GET /logs/query HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", ERR_INVALID, "no colon"},
		{"GET /logs/query HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", ERR_INVALID, "space before the colon"},
		{"GET /logs/query HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", ERR_INVALID, "more than one Host"},
		{"POST /logs HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" HOST, ERR_INVALID, "HTTP/1.0"},
		{"POST /logs HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n" HOST, ERR_INVALID, "other than"},
		{"POST /logs HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n" HOST, ERR_INVALID, "other than"},
		{"POST /logs HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n" HOST, ERR_INVALID, "other than"},
		{"POST /logs HTTP/1.1\r\nTransfer-Encoding:\r\n" HOST, ERR_INVALID, "other than"},
		{"POST /logs HTTP/1.1\r\nTransfer-Encoding : chunked\r\n" HOST, ERR_INVALID, "space before the colon"},
		{"POST /logs HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n" HOST, ERR_INVALID, "no colon"},
		{"POST /logs HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" HOST,
		 ERR_INVALID, "other than"},
		{"POST /logs HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n" HOST, ERR_INVALID,
		 "twice"},
		{"POST /logs HTTP/1.1\r\nExpect: gold\r\n" HOST, ERR_INVALID, "100-continue"},
		{"POST /logs HTTP/1.1\r\nContent-Length: 0x5\r\n" HOST, ERR_INVALID, "Content-Length"},
		{"POST /logs HTTP/1.1\r\nContent-Length: 5, 5\r\n" HOST, ERR_INVALID, "Content-Length"},
		{"POST /logs HTTP/1.1\r\nContent-Length: 9999999999999\r\n" HOST, ERR_INVALID, "Content-Length"},
		{"POST /logs HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n" HOST, ERR_INVALID, "twice"},
		{"POST /logs HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n" HOST, ERR_INVALID,
		 "twice"},
		{"POST /logs HTTP/1.1\r\nContent-Length: -1\r\n" HOST, ERR_INVALID, "Content-Length"},
		{"POST /logs HTTP/1.1\r\nContent-Length: +1\r\n" HOST, ERR_INVALID, "Content-Length"},
		{"GET /logs/query HTTP/1.1\r\nConnection: a\r\nConnection: b\r\n" HOST, ERR_INVALID,
		 "more than one Connection"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		struct err err = {0};
		struct service_request request = {.length = -1};
		int rc = rewrite(cases[i].head, STR(""), &out, &request, &err);
		if (rc != -(int)cases[i].code || strstr(err.msg, cases[i].says) == NULL)
			fail_msg("%zu '%s': %d %s", i, cases[i].head, rc, err.msg);
		assert_int_equal(out.len, 0);
	}
}

static void a_head_has_a_bound(void **state)
{
	autofree char *bytes = xmalloc(SERVICE_HEAD_MAX + 1);
	struct err err = {0};
	size_t size = 0;

	(void)state;
	memset(bytes, 'a', SERVICE_HEAD_MAX);
	assert_int_equal(service_head_size((struct str){bytes, SERVICE_HEAD_MAX - 1}, &size, &err),
			 SERVICE_HEAD_PARTIAL);
	assert_int_equal(service_head_size((struct str){bytes, SERVICE_HEAD_MAX}, &size, &err), -ERR_HEADERS_TOO_LARGE);
	assert_int_equal(service_head_size(STR(""), &size, &err), SERVICE_HEAD_PARTIAL);
}

static void a_nul_and_too_many_headers_are_refused(void **state)
{
	static const char nul[] = "GET /logs/query HTTP/1.1\r\nHost: a\0b\r\n\r\n";
	const struct service_target target = {.calls = calls, .count = 2, .host = STR("h"), .prefix = STR("")};
	autovar(buf) many = {0};
	autovar(buf) out = {0};
	struct service_request request;

	(void)state;
	assert_int_equal(service_head_rewrite(nul, sizeof(nul) - 1, &target, &out, &request, NULL), -ERR_INVALID);
	buf_puts(&many, "GET /logs/query HTTP/1.1\r\nHost: a\r\n");
	for (int i = 0; i < 64; i++)
		buf_printf(&many, "X-%d: 1\r\n", i);
	buf_puts(&many, "\r\n");
	assert_int_equal(service_head_rewrite(many.data, many.len, &target, &out, &request, NULL),
			 -ERR_HEADERS_TOO_LARGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_token_is_added_and_the_jobs_own_is_not_passed),
		cmocka_unit_test(an_old_client_gets_an_old_answer_and_a_prefix_stands_before_the_path),
		cmocka_unit_test(a_body_in_chunks_is_said_to_be_one),
		cmocka_unit_test(what_is_odd_or_not_on_the_list_is_refused),
		cmocka_unit_test(a_head_has_a_bound),
		cmocka_unit_test(a_nul_and_too_many_headers_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
