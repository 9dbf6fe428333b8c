/* Bodies in chunks: what is one, what is passed on of it, and where it ends, however it is cut on its way. */
#include "shim/service_chunks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

/* In pieces of so many bytes. Gives how many are of it, or an error. */
static int take(struct str bytes, size_t piece, struct buf *out, bool *ret_over, struct err *err)
{
	struct service_chunks c = {0};
	size_t all = 0, used = 1;

	while (all < bytes.len && used > 0) {
		size_t len = bytes.len - all < piece ? bytes.len - all : piece;
		int rc = service_chunks_take(&c, (struct str){bytes.data + all, len}, out, &used, err);
		if (rc < 0)
			return rc;
		all += used;
	}
	*ret_over = service_chunks_are_over(&c);
	return (int)all;
}

static void what_is_passed_on_is_plain_however_it_comes(void **state)
{
	static const struct {
		struct str bytes;
		size_t rest;
		struct str out;
	} cases[] = {
		{STR("0\r\n\r\n"), 0, STR("0\r\n\r\n")},
		{STR("5\r\nhello\r\n0\r\n\r\n"), 0, STR("5\r\nhello\r\n0\r\n\r\n")},
		{STR("000000000000000000000005\r\nhello\r\n00\r\n\r\n"), 0, STR("5\r\nhello\r\n0\r\n\r\n")},
		{STR("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"), 0,
		 STR("a\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n")},
		{STR("1;a\r\nx\r\n1;a=b;c=\"d e\"\r\ny\r\n1 \t;z\r\nz\r\n0;last\r\n\r\n"), 0,
		 STR("1\r\nx\r\n1\r\ny\r\n1\r\nz\r\n0\r\n\r\n")},
		/* Its trailers are nobody's. */
		{STR("1\r\nx\r\n0\r\nAuthorization: Bearer mine\r\nContent-Length: 7\r\n\r\nGET /"), 5,
		 STR("1\r\nx\r\n0\r\n\r\n")},
		/* What looks like an end is not one within a chunk. */
		{STR("7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\nPOST"), 4, STR("7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n")},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (size_t piece = 1; piece <= cases[i].bytes.len; piece++) {
			autovar(buf) out = {0};
			struct err err = {0};
			bool over = false;
			int used = take(cases[i].bytes, piece, &out, &over, &err);
			if (used != (int)(cases[i].bytes.len - cases[i].rest) || !over ||
			    !str_eq(buf_str(&out), cases[i].out))
				fail_msg("%zu by %zu: %d %s '%.*s'", i, piece, used, err.msg, STR_ARG(buf_str(&out)));
		}
	}
}

static void what_is_no_chunk_is_refused(void **state)
{
	static const struct {
		struct str bytes;
		enum err_code code;
		const char *says;
	} cases[] = {
		{STR("\r\n"), ERR_INVALID, "begin with its size"},
		{STR(" 5\r\nhello\r\n"), ERR_INVALID, "begin with its size"},
		{STR("-1\r\n"), ERR_INVALID, "begin with its size"},
		{STR("+5\r\nhello\r\n"), ERR_INVALID, "begin with its size"},
		{STR(";a\r\n"), ERR_INVALID, "begin with its size"},
		{STR("g\r\n"), ERR_INVALID, "begin with its size"},
		{STR("0x5\r\nhello\r\n"), ERR_INVALID, "no number"},
		{STR("5h\r\nhello\r\n"), ERR_INVALID, "no number"},
		{STR("5 \r\nhello\r\n"), ERR_INVALID, "no number"},
		{STR("5 5\r\nhello\r\n"), ERR_INVALID, "no number"},
		{STR("5\nhello\n"), ERR_INVALID, "no number"},
		{STR("5\0\r\nhello\r\n"), ERR_INVALID, "no number"},
		{STR("5\r\r\nhello\r\n"), ERR_INVALID, "end in CR LF"},
		{STR("5\rhello"), ERR_INVALID, "end in CR LF"},
		{STR("5;a\nhello\r\n"), ERR_INVALID, "extension"},
		{STR("5;a\0b\r\nhello\r\n"), ERR_INVALID, "extension"},
		{STR("5;a\rb\r\nhello\r\n"), ERR_INVALID, "end in CR LF"},
		{STR("5\r\nhello\n0\r\n\r\n"), ERR_INVALID, "more bytes than"},
		{STR("5\r\nhello0\r\n\r\n"), ERR_INVALID, "more bytes than"},
		{STR("4\r\nhello\r\n0\r\n\r\n"), ERR_INVALID, "more bytes than"},
		{STR("5\r\nhello\r\r\n"), ERR_INVALID, "chunk does not end in CR LF"},
		{STR("6\r\nhello\r\n0\r\n\r\n"), ERR_INVALID, "more bytes than"},
		{STR("0\r\n\n"), ERR_INVALID, "trailer's name"},
		{STR("0\r\n folded: a\r\n\r\n"), ERR_INVALID, "is folded"},
		{STR("0\r\nA: b\r\n c\r\n\r\n"), ERR_INVALID, "is folded"},
		{STR("0\r\nA : b\r\n\r\n"), ERR_INVALID, "trailer's name"},
		{STR("0\r\nAbc\r\n\r\n"), ERR_INVALID, "trailer's name"},
		{STR("0\r\nA: b\n\r\n"), ERR_INVALID, "trailer's value"},
		{STR("0\r\nA: b\0\r\n\r\n"), ERR_INVALID, "trailer's value"},
		{STR("0\r\nA: b\rc\r\n\r\n"), ERR_INVALID, "trailer does not end"},
		{STR("0\r\n\rX"), ERR_INVALID, "last chunk"},
		{STR("10000000001\r\n"), ERR_TOO_LARGE, "more than 1099511627776 bytes"},
		{STR("ffffffffffffffff\r\n"), ERR_TOO_LARGE, "more than 1099511627776 bytes"},
		{STR("ffffffffffffffffffffffffffffffffff\r\n"), ERR_TOO_LARGE, "more than 1099511627776 bytes"},
		{STR("10000000000000005\r\nhello\r\n"), ERR_TOO_LARGE, "more than 1099511627776 bytes"},
		{STR("1\r\nx\r\n10000000000\r\n"), ERR_TOO_LARGE, "more than 1099511627776 bytes"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (size_t piece = 1; piece <= cases[i].bytes.len; piece++) {
			autovar(buf) out = {0};
			struct err err = {0};
			bool over = false;
			int rc = take(cases[i].bytes, piece, &out, &over, &err);
			if (rc != -(int)cases[i].code || strstr(err.msg, cases[i].says) == NULL)
				fail_msg("%zu by %zu: %d %s", i, piece, rc, err.msg);
		}
	}
}

/* Of `head`, then so many times `more`. */
static int take_long(const char *head, const char *more, size_t times, struct err *err)
{
	autovar(buf) bytes = {0}, out = {0};
	bool over = false;

	buf_puts(&bytes, head);
	for (size_t i = 0; i < times; i++)
		buf_puts(&bytes, more);
	int rc = take(buf_str(&bytes), 1000, &out, &over, err);
	assert_false(over);
	return rc < 0 ? rc : 0;
}

static void what_is_thrown_away_has_a_bound(void **state)
{
	struct err err = {0};

	(void)state;
	assert_int_equal(take_long("1;", "x", SERVICE_CHUNK_LINE_MAX - 2, NULL), 0);
	assert_int_equal(take_long("1;", "x", SERVICE_CHUNK_LINE_MAX - 1, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "a line has more than 1024 bytes"));
	assert_int_equal(take_long("", "0", SERVICE_CHUNK_LINE_MAX + 1, &err), -ERR_INVALID);
	assert_int_equal(take_long("1", " ", SERVICE_CHUNK_LINE_MAX, &err), -ERR_INVALID);
	/* One line, or many. */
	assert_int_equal(take_long("0\r\n", "x", SERVICE_CHUNK_TRAILERS_MAX, NULL), 0);
	assert_int_equal(take_long("0\r\n", "x", SERVICE_CHUNK_TRAILERS_MAX + 1, &err), -ERR_INVALID);
	assert_int_equal(take_long("0\r\n", "a:b\r\n", SERVICE_CHUNK_TRAILERS_MAX / 5 + 1, &err), -ERR_INVALID);
	assert_non_null(strstr(err.msg, "what follows the last has more than 8192 bytes"));
	/* Each line has its own. */
	assert_int_equal(take_long("", "1;extension-of-a-chunk\r\nx\r\n", 1000, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_passed_on_is_plain_however_it_comes),
		cmocka_unit_test(what_is_no_chunk_is_refused),
		cmocka_unit_test(what_is_thrown_away_has_a_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
