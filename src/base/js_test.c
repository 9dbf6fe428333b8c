#include "base/js.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

static struct js *parse(const char *text)
{
	struct js *v = NULL;
	struct err err = {0};

	if (js_parse(str_c(text), &v, &err) < 0)
		fail_msg("%s: %s", text, err.msg);
	return v;
}

static void good_text_comes_out_as_it_went_in(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"null",
		"true",
		"-9223372036854775808",
		"9223372036854775807",
		"0.1",
		"[1,[2,[]],{}]",
		"{\"z\":1,\"a\":{\"b\":\"\xc3\xbc \\\" \\u0001\"}}",
	};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		autoptr(js) v = parse(texts[i]);
		autovar(buf) out = {0};
		js_write(v, &out);
		assert_string_equal(out.data, texts[i]);
	}
}

static void bad_text_is_refused(void **state)
{
	(void)state;
	const struct {
		struct str text;
		const char *message;
	} cases[] = {
		{STR(""), "JSON: line 1"},
		{STR("{\"a\":1"), "line 1, column"},
		{STR("{\"a\":1,\"a\":2}"), "duplicate"},
		{STR("\"a\\u0000b\""), "a zero byte"},
		{STR("{\"\\u0000\":1}"), "NUL byte"},
		{STR("\"a\0b\""), "control character"},
		{STR("\"\xff\""), "unable to decode byte 0xff"},
		{STR("\"\\ud800\""), "invalid Unicode '\\uD800'"},
		{STR("9223372036854775808"), "too big"},
		{STR("1e999"), "overflow"},
		{STR("NaN"), "line 1"},
		{STR("[1] x"), "end of file"},
		{STR("01"), "line 1"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct js *v = NULL;
		struct err err = {0};
		assert_int_equal(js_parse(cases[i].text, &v, &err), -ERR_INVALID);
		if (strstr(err.msg, cases[i].message) == NULL)
			fail_msg("case %zu: %s", i, err.msg);
	}
}

static void depth_is_bounded(void **state)
{
	(void)state;
	autovar(buf) text = {0};
	struct js *v = NULL;
	struct err err = {0};

	for (int i = 0; i < 64; i++)
		buf_putc(&text, '[');
	buf_puts(&text, "\"[[\\\"[\"");
	for (int i = 0; i < 64; i++)
		buf_putc(&text, ']');
	js_free(parse(text.data));
	autofree char *deeper = xasprintf("[%s]", text.data);
	assert_int_equal(js_parse(str_c(deeper), &v, &err), -ERR_INVALID);
	assert_string_equal(err.msg, "JSON: more than 64 levels deep at byte 64");
}

/* Two bytes a value: in memory each is thirty times that. */
static void a_flood_of_values_is_refused(void **state)
{
	(void)state;
	enum { MANY = (1 << 20) + 10 };
	autovar(buf) text = {0};
	struct js *v = NULL;
	struct err err = {0};

	buf_putc(&text, '[');
	for (int i = 0; i < MANY; i++)
		buf_puts(&text, "0,");
	buf_puts(&text, "0]");
	assert_int_equal(js_parse(buf_str(&text), &v, &err), -ERR_INVALID);
	assert_string_equal(err.msg, "JSON: more than 1048576 values");
	/* Commas in text are none. */
	buf_clear(&text);
	buf_putc(&text, '"');
	for (int i = 0; i < MANY; i++)
		buf_puts(&text, ",[");
	buf_putc(&text, '"');
	assert_int_equal(js_parse(buf_str(&text), &v, &err), 0);
	js_free(v);
}

static void look_ups_chain_and_fall_back(void **state)
{
	(void)state;
	autoptr(js) v = parse("{\"a\":{\"b\":[1,\"x\",2.5,true]}}");
	const struct js *list = js_get(js_get(v, "a"), "b");

	assert_int_equal(js_len(list), 4);
	assert_int_equal(js_int(js_at(list, 0), 0), 1);
	assert_string_equal(js_text(js_at(list, 1), ""), "x");
	assert_true(js_real(js_at(list, 2), 0) > 2.4);
	assert_true(js_bool(js_at(list, 3), false));
	assert_null(js_at(list, 4));
	assert_null(js_get(js_get(v, "no"), "b"));
	assert_int_equal(js_int(js_at(list, 1), -7), -7);
	assert_string_equal(js_text(NULL, "none"), "none");
	assert_int_equal(js_len(v), 0);
}

static void built_values(void **state)
{
	(void)state;
	autoptr(js) v = js_new_object();
	autovar(buf) out = {0};
	struct js *list = js_new_array();

	js_push(list, js_new_int(1));
	js_push(list, js_new_null());
	js_push(list, js_new_real(__builtin_nan("")));
	js_set(v, "z", list);
	js_set(v, "bad", js_new_str(STR("a\xff\0b")));
	js_set_time(v, "at", NS_PER_S);
	js_set_time(v, "never", 0);
	autoptr(js) copy = js_copy(v);
	js_write_sorted(copy, &out);
	assert_string_equal(out.data, "{\"at\":\"1970-01-01T00:00:01.000000Z\",\"bad\":\"a\xef\xbf\xbd\xef\xbf\xbd"
				      "b\",\"never\":null,\"z\":[1,null,null]}");
}

static void objects_are_walked_in_order(void **state)
{
	(void)state;
	autoptr(js) v = parse("{\"b\":1,\"a\":2}");
	autovar(buf) seen = {0};
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;

	while (js_each(v, &iter, &key, &value))
		buf_printf(&seen, "%s%d", key, (int)js_int(value, 0));
	assert_string_equal(seen.data, "b1a2");
	iter = NULL;
	assert_false(js_each(NULL, &iter, &key, &value));
}

/* --- shapes --- */

struct file {
	const char *name;
	int64_t size;
};

struct message {
	const char *text;
	int64_t number;
	bool flag;
	double share;
	int64_t at;
	struct js_texts labels;
	struct js_pairs env;
	struct file file;
	struct js_objects files;
	const struct js *any;
};

static const struct js_field file_fields[] = {
	{"name", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct file, name), .max = 8},
	{"size", JS_FIELD_I64, JS_NULL_ZERO, offsetof(struct file, size)},
};
static const struct js_shape file_shape = JS_SHAPE(struct file, file_fields);

static const struct js_field message_fields[] = {
	{"text", JS_FIELD_TEXT, 0, offsetof(struct message, text)},
	{"number", JS_FIELD_I64, JS_REQUIRED, offsetof(struct message, number), .min = -5, .max = 10},
	{"flag", JS_FIELD_BOOL, JS_OMIT_EMPTY, offsetof(struct message, flag)},
	{"share", JS_FIELD_REAL, JS_OMIT_EMPTY, offsetof(struct message, share), .max = 1},
	{"at", JS_FIELD_TIME, 0, offsetof(struct message, at)},
	{"labels", JS_FIELD_TEXTS, 0, offsetof(struct message, labels), .max = 2},
	{"env", JS_FIELD_PAIRS, JS_OMIT_EMPTY, offsetof(struct message, env)},
	{"file", JS_FIELD_OBJECT, 0, offsetof(struct message, file), .shape = &file_shape},
	{"files", JS_FIELD_OBJECTS, JS_OMIT_EMPTY, offsetof(struct message, files), .shape = &file_shape},
	{"any", JS_FIELD_ANY, JS_OMIT_EMPTY, offsetof(struct message, any)},
};
static const struct js_shape message_shape = JS_SHAPE(struct message, message_fields);

static void a_whole_message_goes_both_ways(void **state)
{
	(void)state;
	static const char text[] = "{\"text\":\"hi\",\"number\":-5,\"flag\":true,\"share\":0.5,"
				   "\"at\":\"2026-11-21T12:40:00.000000Z\",\"labels\":[\"a\",\"b\"],"
				   "\"env\":{\"X\":\"1\"},\"file\":{\"name\":\"f\",\"size\":null},"
				   "\"files\":[{\"name\":\"g\",\"size\":3}],\"any\":[1,{\"x\":null}]}";
	autoptr(arena) arena = arena_new();
	autoptr(js) v = parse(text);
	struct message m;
	struct err err = {0};

	if (js_decode(v, &message_shape, arena, &m, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(m.labels.items[1], "b");
	assert_string_equal(m.env.items[0].key, "X");
	assert_int_equal(((struct file *)m.files.items)[0].size, 3);
	autoptr(js) again = js_encode(&message_shape, &m);
	autovar(buf) out = {0};
	js_write(again, &out);
	assert_string_equal(out.data, text);
}

static void what_is_empty_is_left_out_or_null(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	autoptr(js) v = parse("{\"number\":\"7\",\"unknown\":1,\"text\":null,\"file\":{\"name\":\"\"}}");
	struct message m;
	autovar(buf) out = {0};

	assert_int_equal(js_decode(v, &message_shape, arena, &m, NULL), 0);
	assert_int_equal(m.number, 7);
	assert_null(m.text);
	autoptr(js) again = js_encode(&message_shape, &m);
	js_write(again, &out);
	assert_string_equal(out.data, "{\"text\":null,\"number\":7,\"at\":null,\"labels\":[],"
				      "\"file\":{\"name\":\"\",\"size\":null}}");
}

static void messages_name_the_field(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {
		{"[]", "must be a JSON object"},
		{"{}", "number: is required"},
		{"{\"number\":null}", "number: is required"},
		{"{\"number\":11}", "number: must be from -5 to 10"},
		{"{\"number\":1.5}", "number: must be a whole number"},
		{"{\"number\":\"x\"}", "number: must be a whole number"},
		{"{\"number\":1,\"text\":1}", "text: must be text"},
		{"{\"number\":1,\"flag\":1}", "flag: must be true or false"},
		{"{\"number\":1,\"share\":2}", "share: must be from 0 to 1"},
		{"{\"number\":1,\"at\":\"x\"}", "at: 'x' is not a time"},
		{"{\"number\":1,\"labels\":{}}", "labels: must be a list of texts"},
		{"{\"number\":1,\"labels\":[\"a\",null]}", "labels.1: must be text"},
		{"{\"number\":1,\"labels\":[\"a\",\"b\",\"c\"]}", "labels: must have at most 2 items, has 3"},
		{"{\"number\":1,\"env\":{\"X\":1}}", "env.X: must be text"},
		{"{\"number\":1,\"file\":{}}", "file.name: is required"},
		{"{\"number\":1,\"file\":1}", "file: must be an object"},
		{"{\"number\":1,\"file\":{\"name\":\"f\"},\"files\":[{\"name\":\"123456789\"}]}",
		 "files.0.name: must be at most 8 bytes, is 9"},
		{"{\"number\":1,\"file\":{\"name\":\"f\"},\"files\":[1]}", "files.0: must be an object"},
	};
	autoptr(arena) arena = arena_new();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(js) v = parse(cases[i].text);
		struct message m;
		struct err err = {0};
		assert_int_equal(js_decode(v, &message_shape, arena, &m, &err), -ERR_INVALID_FIELD);
		if (strstr(err.msg, cases[i].message) != err.msg)
			fail_msg("%s: %s", cases[i].text, err.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flood_of_values_is_refused),
		cmocka_unit_test(good_text_comes_out_as_it_went_in),
		cmocka_unit_test(bad_text_is_refused),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(look_ups_chain_and_fall_back),
		cmocka_unit_test(built_values),
		cmocka_unit_test(objects_are_walked_in_order),
		cmocka_unit_test(a_whole_message_goes_both_ways),
		cmocka_unit_test(what_is_empty_is_left_out_or_null),
		cmocka_unit_test(messages_name_the_field),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
