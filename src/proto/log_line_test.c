#include "proto/log_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

static void assert_text(struct str got, const char *want)
{
	assert_int_equal(got.len, strlen(want));
	assert_memory_equal(got.data, want, got.len);
}

static void comes_back_as_it_was_sent(void **state)
{
	(void)state;
	static const char *const messages[] = {
		"hello",
		"",
		"tab\t quote\" back\\slash",
		"\x1b[31mred\x1b[0m\r",
		"gr\xc3\xbc\xc3\x9f \xf0\x9f\x90\x99",
		"\x01\x02\x7f",
		"{\"entries\":[]}",
		"a/b",
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
		struct log_line line = {
			.job_id = 7,
			.attempt = 2,
			.seq = 42,
			.stream = LOG_STREAM_STDERR,
			.level = LOG_LINE_WARNING,
			.message = str_c(messages[i]),
			.timestamp = 1795264800 * NS_PER_S + 123456 * NS_PER_US,
			.org_id = 3,
			.repo_id = 9,
			.agent_id = STR("host \"1\""),
		};
		autovar(buf) text = {0};
		struct log_line back;
		log_line_encode(&line, &text);
		assert_int_equal(log_line_decode(buf_str(&text), arena, &back, NULL), 0);
		assert_text(back.message, messages[i]);
		assert_text(back.agent_id, "host \"1\"");
		assert_int_equal(back.job_id, 7);
		assert_int_equal(back.attempt, 2);
		assert_int_equal(back.seq, 42);
		assert_int_equal(back.stream, LOG_STREAM_STDERR);
		assert_int_equal(back.level, LOG_LINE_WARNING);
		assert_int_equal(back.timestamp, line.timestamp);
		assert_int_equal(back.org_id, 3);
		assert_int_equal(back.repo_id, 9);
	}
}

static void bytes_that_are_no_text_are_replaced(void **state)
{
	(void)state;
	static const struct {
		struct str bytes;
		const char *text;
	} cases[] = {
		{STR("a\xff"
		     "b"),
		 "a\xef\xbf\xbd"
		 "b"},
		{STR("\xc3"), "\xef\xbf\xbd"},
		{STR("x\0y"), "x\xef\xbf\xbdy"},
		{STR("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct log_line line = {.job_id = 1, .message = cases[i].bytes};
		autovar(buf) text = {0};
		struct log_line back;
		log_line_encode(&line, &text);
		assert_int_equal(log_line_decode(buf_str(&text), arena, &back, NULL), 0);
		assert_text(back.message, cases[i].text);
	}
}

/* The seeds' agents know neither attempt nor seq, and send null for what they do not have. */
static void absent_fields_have_defaults(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	struct log_line line;

	assert_int_equal(
		log_line_decode(STR("{\"job_id\": 5, \"agent_id\": \"a\", \"org_id\": null, \"repo_id\": null, "
				    "\"message\": \"m\", \"timestamp\": \"2026-11-21T12:40:00+00:00\", \"x\": [1]}"),
				arena, &line, NULL),
		0);
	assert_int_equal(line.job_id, 5);
	assert_int_equal(line.attempt, 0);
	assert_int_equal(line.seq, 0);
	assert_int_equal(line.stream, LOG_STREAM_STDOUT);
	assert_int_equal(line.level, LOG_LINE_INFO);
	assert_int_equal(line.org_id, 0);
	assert_int_equal(
		log_line_decode(STR("{\"job_id\":5,\"message\":\"\\ud83d\\udc19 \\u00e9\"}"), arena, &line, NULL), 0);
	assert_text(line.message, "\xf0\x9f\x90\x99 \xc3\xa9");
}

static void wrong_lines_are_refused_by_name(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		const char *part; /* of the message */
	} cases[] = {
		{"", ""},
		{"{", ""},
		{"7", ""},
		{"{}", "job_id"},
		{"{\"message\":\"m\"}", "job_id"},
		{"{\"job_id\":1}", "message"},
		{"{\"job_id\":0,\"message\":\"\"}", "job_id"},
		{"{\"job_id\":-1,\"message\":\"\"}", "job_id"},
		{"{\"job_id\":9007199254740992,\"message\":\"\"}", "job_id"},
		{"{\"job_id\":1,\"seq\":-1,\"message\":\"\"}", "seq"},
		{"{\"job_id\":1,\"seq\":1.5,\"message\":\"\"}", "seq"},
		{"{\"job_id\":1,\"message\":5}", "message"},
		{"{\"job_id\":1,\"message\":\"\",\"stream\":\"stdin\"}", "stream"},
		{"{\"job_id\":1,\"message\":\"\",\"level\":\"loud\"}", "level"},
		{"{\"job_id\":1,\"message\":\"\",\"timestamp\":\"yesterday\"}", "timestamp"},
		{"{\"job_id\":1,\"job_id\":2,\"message\":\"\"}", ""},
		{"{\"job_id\":1,\"message\":\"\xff\"}", ""},
		{"{\"job_id\":1,\"message\":\"\\u0000\"}", ""},
		{"{\"job_id\":1,\"message\":\"a\nb\"}", ""},
		{"{\"job_id\":1,\"message\":\"m\"} x", ""},
		{"{\"job_id\":01,\"message\":\"m\"}", ""},
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct log_line line;
		struct err err = {0};
		assert_true(log_line_decode(str_c(cases[i].json), arena, &line, &err) < 0);
		if (strstr(err.msg, cases[i].part) == NULL)
			fail_msg("%s: '%s' does not name %s", cases[i].json, err.msg, cases[i].part);
	}
}

/* Eight bytes are looked at together: what ends plain text is seen at each of their places. */
static void what_is_not_plain_is_seen_anywhere(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		const char *text; /* NULL: refused */
	} odd[] = {
		{"\\\"", "\""},	  {"\\\\", "\\"},	    {"\\n", "\n"},  {"\\u0041", "A"}, {" ", " "},
		{"\x7f", "\x7f"}, {"\xc3\xa9", "\xc3\xa9"}, {"\x1f", NULL}, {"\x01", NULL},   {"\n", NULL},
		{"\xff", NULL},
	};
	static const char as[] = "aaaaaaaaaaaaaaaaa";

	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		for (int before = 0; before <= 17; before++) {
			for (int after = 0; after <= 17; after++) {
				autoptr(arena) arena = arena_new();
				struct log_line line;
				char *json = arena_printf(arena, "{\"job_id\":1,\"message\":\"%.*s%s%.*s\"}", before,
							  as, odd[i].json, after, as);
				int rc = log_line_decode(str_c(json), arena, &line, NULL);
				assert_int_equal(rc == 0, odd[i].text != NULL);
				if (rc == 0)
					assert_text(line.message, arena_printf(arena, "%.*s%s%.*s", before, as,
									       odd[i].text, after, as));
			}
		}
	}
}

static void too_long_a_message_is_refused(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	autovar(buf) json = {0};
	struct log_line line;

	buf_puts(&json, "{\"job_id\":1,\"message\":\"");
	for (size_t i = 0; i < LOG_LINE_MAX; i++)
		buf_putc(&json, 'x');
	buf_puts(&json, "\"}");
	assert_int_equal(log_line_decode(buf_str(&json), arena, &line, NULL), 0);
	assert_int_equal(line.message.len, LOG_LINE_MAX);
	json.len -= 2;
	buf_puts(&json, "x\"}");
	assert_true(log_line_decode(buf_str(&json), arena, &line, NULL) < 0);
}

static void a_body_has_three_forms(void **state)
{
	(void)state;
	static const char *const bodies[] = {
		"{\"job_id\":1,\"message\":\"a\"}\n\n{\"job_id\":1,\"message\":\"b\"}\n",
		"{\"job_id\":1,\"message\":\"a\"}\r\n{\"job_id\":1,\"message\":\"b\"}",
		"[{\"job_id\":1,\"message\":\"a\"},{\"job_id\":1,\"message\":\"b\"}]",
		"{\"entries\":[{\"job_id\":1,\"message\":\"a\"},{\"job_id\":1,\"message\":\"b\"}]}",
		"\n{ \"entries\" : [{\"job_id\":1,\n\"message\":\"a\"},{\"job_id\":1,\"message\":\"b\"}]}",
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
		struct log_batch batch;
		assert_int_equal(log_batch_decode(str_c(bodies[i]), arena, &batch, NULL), 0);
		assert_int_equal(batch.count, 2);
		assert_text(batch.lines[0].message, "a");
		assert_text(batch.lines[1].message, "b");
	}
}

static void a_wrong_body_says_where(void **state)
{
	(void)state;
	static const struct {
		const char *body;
		const char *part;
	} cases[] = {
		{" \n", "empty"},
		{"{\"job_id\":1,\"message\":\"a\"}\n{\"job_id\":1}", "line 2"},
		{"[{\"job_id\":1,\"message\":\"a\"},7]", "item 2"},
		{"{\"entries\":[{\"message\":\"a\"}]}", "entry 1"},
		{"{\"entries\":7}", "entries"},
		{"[", ""},
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct log_batch batch;
		struct err err = {0};
		assert_true(log_batch_decode(str_c(cases[i].body), arena, &batch, &err) < 0);
		assert_non_null(strstr(err.msg, cases[i].part));
	}
}

static void too_many_lines_are_refused(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	autovar(buf) body = {0};
	struct log_batch batch;
	struct err err = {0};

	for (size_t i = 0; i < LOG_BATCH_MAX; i++)
		buf_puts(&body, "{\"job_id\":1,\"message\":\"\"}\n");
	assert_int_equal(log_batch_decode(buf_str(&body), arena, &batch, NULL), 0);
	assert_int_equal(batch.count, LOG_BATCH_MAX);
	buf_puts(&body, "{\"job_id\":1,\"message\":\"\"}\n");
	assert_int_equal(log_batch_decode(buf_str(&body), arena, &batch, &err), -ERR_TOO_LARGE);
}

/* Whatever a job writes: what fits is accepted by the pipeline as it was sent. */
static void what_fits_is_never_refused(void **state)
{
	(void)state;
	static const struct str fillings[] = {STR("x"),	       STR("\xff"),	STR("\0"),
					      STR("\xc3\xa9"), STR("\x01\x80"), STR("\xf0\x9f\x98")};

	for (size_t i = 0; i < ARRAY_LEN(fillings); i++) {
		autoptr(arena) arena = arena_new();
		autovar(buf) bytes = {0};
		autovar(buf) json = {0};
		struct log_line line = {0};

		while (bytes.len + fillings[i].len <= LOG_LINE_MAX)
			buf_append_str(&bytes, fillings[i]);
		size_t fit = log_line_fit(buf_str(&bytes));
		assert_true(fit >= LOG_LINE_MAX / 3 && fit <= bytes.len);
		log_line_encode(&(struct log_line){.job_id = 1, .message = {bytes.data, fit}}, &json);
		assert_int_equal(log_line_decode(buf_str(&json), arena, &line, NULL), 0);
		assert_true(line.message.len >= fit && line.message.len <= LOG_LINE_MAX);
	}
	assert_int_equal(log_line_fit(STR("")), 0);
}

static void commands_keep_their_kind(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	autovar(buf) shown = {0};
	struct log_line back = {0};
	struct log_line line = {
		.job_id = 7, .message = STR("::error file=a%2C.c,line=3::x%0Ay"), .markup = LOG_MARKUP_ERROR};

	for (int m = LOG_MARKUP_NONE; m < LOG_MARKUP_COUNT; m++) {
		autovar(buf) text = {0};
		line.markup = (enum log_markup)m;
		log_line_encode(&line, &text);
		assert_int_equal(log_line_decode(buf_str(&text), arena, &back, NULL), 0);
		assert_int_equal(back.markup, m);
	}
	line.markup = LOG_MARKUP_ERROR;
	log_line_show(&line, &shown);
	assert_non_null(strstr(shown.data,
			       "\"markup\":\"error\",\"command\":{\"text\":\"x\\ny\",\"file\":\"a,.c\",\"line\":3}}"));
	assert_int_equal(log_line_decode(buf_str(&shown), arena, &back, NULL), 0);
	assert_int_equal(back.markup, LOG_MARKUP_ERROR);
	/* What a newer program calls a line is text here. */
	assert_int_equal(
		log_line_decode(STR("{\"job_id\":1,\"message\":\"m\",\"markup\":\"dance\"}"), arena, &back, NULL), 0);
	assert_int_equal(back.markup, LOG_MARKUP_NONE);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_keep_their_kind),
		cmocka_unit_test(what_fits_is_never_refused),
		cmocka_unit_test(comes_back_as_it_was_sent),
		cmocka_unit_test(bytes_that_are_no_text_are_replaced),
		cmocka_unit_test(absent_fields_have_defaults),
		cmocka_unit_test(wrong_lines_are_refused_by_name),
		cmocka_unit_test(what_is_not_plain_is_seen_anywhere),
		cmocka_unit_test(too_long_a_message_is_refused),
		cmocka_unit_test(a_body_has_three_forms),
		cmocka_unit_test(a_wrong_body_says_where),
		cmocka_unit_test(too_many_lines_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
