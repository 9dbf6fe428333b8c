/* Where an answer of a service ends, however it is cut on its way. */
#include "shim/service_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static int take(struct service_reply *r, struct str bytes, size_t piece, struct err *err)
{
	size_t all = 0, used = 1;

	while (all < bytes.len && used > 0) {
		size_t len = bytes.len - all < piece ? bytes.len - all : piece;
		int rc = service_reply_take(r, (struct str){bytes.data + all, len}, &used, err);
		if (rc < 0)
			return rc;
		all += used;
	}
	return (int)all;
}

static void an_answer_ends_where_it_says(void **state)
{
#define OK "HTTP/1.1 200 OK\r\n"
	static const struct {
		struct str bytes;
		size_t rest;
		enum service_reply_at at;
		bool keep;
	} cases[] = {
		{STR(OK "Content-Length: 2\r\n\r\nabHTTP"), 4, SERVICE_REPLY_OVER, true},
		{STR(OK "content-length: 0\r\n\r\nHTTP"), 4, SERVICE_REPLY_OVER, true},
		{STR(OK "Content-Length: 2\r\n\r\na"), 0, SERVICE_REPLY_LENGTH, true},
		{STR(OK "Content-Length: 2\r\nConnection: x, Close\r\n\r\nab"), 0, SERVICE_REPLY_OVER, false},
		{STR("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab"), 0, SERVICE_REPLY_OVER, false},
		{STR(OK "Transfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\nT: t\r\n\r\nrest"), 4, SERVICE_REPLY_OVER,
		 true},
		{STR(OK "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"), 0, SERVICE_REPLY_CHUNKS, true},
		{STR(OK "Transfer-Encoding: gzip\r\n\r\nabc"), 0, SERVICE_REPLY_OPEN, false},
		{STR(OK "X: y\r\n\r\nabc"), 0, SERVICE_REPLY_OPEN, false},
		{STR("HTTP/1.1 204\r\n\r\nabc"), 3, SERVICE_REPLY_OVER, true},
		{STR("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"), 0, SERVICE_REPLY_OVER, true},
		{STR("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nA: b\r\n\r\n" OK "Content-Length: 1\r\n\r\nx?"), 1,
		 SERVICE_REPLY_OVER, true},
		{STR("HTTP/1."), 0, SERVICE_REPLY_HEAD, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (size_t piece = 1; piece <= cases[i].bytes.len; piece++) {
			autovar(service_reply) r = {0};
			struct err err = {0};
			int used = take(&r, cases[i].bytes, piece, &err);
			if (used != (int)(cases[i].bytes.len - cases[i].rest) || r.at != cases[i].at ||
			    r.keep != cases[i].keep)
				fail_msg("%zu by %zu: %d at %d %s", i, piece, used, r.at, err.msg);
		}
	}
}

static void what_is_no_answer_is_told_at_once(void **state)
{
	static const struct {
		struct str bytes;
		const char *says;
	} cases[] = {
		{STR("\x15\x03\x03"), "begins with something else"},
		{STR("SSH-2.0"), "begins with something else"},
		{STR("HTTP/2 200\r\n\r\n"), "begins with something else"},
		{STR("HTTP/1.1 20\r\n\r\n"), "first line"},
		{STR("HTTP/1.1  200\r\n\r\n"), "first line"},
		{STR("HTTP/1.1 2000 OK\r\n\r\n"), "first line"},
		{STR("HTTP/1.1 +20 OK\r\n\r\n"), "first line"},
		{STR(OK "A: b\nC: d\r\n\r\n"), "CR LF"},
		{STR(OK "A: b\r\n c\r\n\r\n"), "folded"},
		{STR(OK "A: b\r\nno colon\r\n\r\n"), "no name"},
		{STR(OK "A: b\0c\r\n\r\n"), "CR LF"},
		{STR(OK "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"), "twice"},
		{STR(OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), "twice"},
		{STR(OK "Content-Length: 1, 1\r\n\r\n"), "no number"},
		{STR(OK "Content-Length: -1\r\n\r\n"), "no number"},
		{STR("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "another protocol"},
		{STR(OK "Transfer-Encoding: chunked\r\n\r\nx\r\n"), "chunks are malformed"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (size_t piece = 1; piece <= cases[i].bytes.len; piece++) {
			autovar(service_reply) r = {0};
			struct err err = {0};
			int rc = take(&r, cases[i].bytes, piece, &err);
			if (rc != -ERR_UNAVAILABLE || strstr(err.msg, cases[i].says) == NULL)
				fail_msg("%zu by %zu: %d %s", i, piece, rc, err.msg);
		}
	}
}

static void a_head_has_a_bound(void **state)
{
	autovar(service_reply) r = {0};
	autovar(buf) bytes = {0};
	struct err err = {0};

	(void)state;
	buf_puts(&bytes, OK);
	while (bytes.len < SERVICE_REPLY_HEAD_MAX - 100)
		buf_puts(&bytes, "X-Header: of some length, and many of them\r\n");
	assert_int_equal(take(&r, buf_str(&bytes), 1000, NULL), bytes.len);
	assert_int_equal(take(&r, buf_str(&bytes), 1000, &err), -ERR_UNAVAILABLE);
	assert_non_null(strstr(err.msg, "too large"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_ends_where_it_says),
		cmocka_unit_test(what_is_no_answer_is_told_at_once),
		cmocka_unit_test(a_head_has_a_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
