#include "base/listing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct screen pipe_screen = {.width = SIZE_MAX};
static const struct screen terminal = {.tty = true, .width = 80};

static void put_upper(const struct js *row, struct buf *out)
{
	buf_printf(out, "<%s>", js_text(js_get(row, "name"), ""));
}

static const struct listing_column columns[] = {
	{"ID", "id"},	  {"NAME", "name", .put = put_upper}, {"LABELS", "labels"},
	{"META", "meta"}, {"AT", "at", .time = true},
};
static const struct listing listing = {
	.id = "id", .columns = columns, .count = ARRAY_LEN(columns), .none = "none yet; make one"};

static const char two_rows[] =
	"[{\"id\": 7, \"name\": \"a, \\\"b\\\"\", \"labels\": [\"x\", \"y\"], \"meta\": {\"k\": 1, "
	"\"l\": \"v\"}, \"at\": \"2026-11-21T12:40:00Z\"},"
	" {\"id\": 8, \"name\": \"c\", \"labels\": [], \"meta\": null, \"at\": null}]";

static int put(const char *text, const struct output_flags *flags, const struct screen *screen, struct buf *out,
	       struct err *err)
{
	autoptr(js) rows = NULL;

	assert_int_equal(js_parse(str_c(text), &rows, NULL), 0);
	return listing_put(&listing, flags, screen, rows, out, err);
}

static void each_form_has_the_same_rows(void **state)
{
	(void)state;
	static const struct {
		struct output_flags flags;
		const char *text;
	} cases[] = {
		{{0},
		 "ID  NAME      LABELS  META      AT\n"
		 "7   <a, \"b\">  x,y     k=1, l=v  2026-11-21T12:40:00Z\n"
		 "8   <c>       -       -         -\n"},
		{{.format = "csv"},
		 "id,name,labels,meta,at\n"
		 "7,\"<a, \"\"b\"\">\",\"x,y\",\"k=1, l=v\",2026-11-21T12:40:00Z\n"
		 "8,<c>,,,\n"},
		{{.format = "name"}, "7\n8\n"},
		{{.quiet = true}, "7\n8\n"},
		{{.format = "jsonl", .json = "name,id"},
		 "{\"name\":\"a, \\\"b\\\"\",\"id\":7}\n{\"name\":\"c\",\"id\":8}\n"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		assert_int_equal(put(two_rows, &cases[i].flags, &pipe_screen, &out, NULL), 0);
		assert_string_equal(out.data, cases[i].text);
	}
}

static void fields_of_json_are_chosen(void **state)
{
	(void)state;
	static const struct output_flags whole = {.json = ""};
	static const struct output_flags some = {.json = "id, meta"};
	autovar(buf) all = {0};
	autovar(buf) few = {0};
	autoptr(js) parsed = NULL;

	assert_int_equal(put(two_rows, &whole, &pipe_screen, &all, NULL), 0);
	assert_non_null(strstr(all.data, "\"labels\""));
	assert_int_equal(put(two_rows, &some, &pipe_screen, &few, NULL), 0);
	assert_int_equal(js_parse(buf_str(&few), &parsed, NULL), 0);
	assert_null(js_get(js_at(parsed, 0), "labels"));
	assert_int_equal(js_int(js_get(js_at(parsed, 1), "id"), 0), 8);
}

static void what_contradicts_is_refused(void **state)
{
	(void)state;
	static const struct {
		struct output_flags flags;
		const char *message;
	} cases[] = {
		{{.quiet = true, .json = ""}, "-q prints ids only: leave out --json"},
		{{.quiet = true, .format = "csv"}, "-q prints ids only: leave out -o"},
		{{.json = "", .format = "table"}, "--json and -o table are two forms: choose one"},
		{{.json = "id,lables"}, "--json: there is no field 'lables'; did you mean labels?"},
		{{.json = "zzzzzz"}, "--json: there is no field 'zzzzzz': id, name, labels, meta, at"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		struct err err = {0};
		assert_int_equal(put(two_rows, &cases[i].flags, &pipe_screen, &out, &err), -ERR_INVALID);
		assert_string_equal(err.msg, cases[i].message);
	}
}

static void nothing_is_said_to_people_and_is_empty_to_programs(void **state)
{
	(void)state;
	static const struct output_flags plain = {0};
	static const struct output_flags fields = {.json = "whatever"};
	autovar(buf) people = {0};
	autovar(buf) piped = {0};
	autovar(buf) json = {0};

	assert_int_equal(put("[]", &plain, &terminal, &people, NULL), 0);
	assert_string_equal(people.data, "none yet; make one\n");
	assert_int_equal(put("[]", &plain, &pipe_screen, &piped, NULL), 0);
	assert_string_equal(piped.data, "ID  NAME  LABELS  META  AT\n");
	assert_int_equal(put("[]", &fields, &pipe_screen, &json, NULL), 0);
	assert_string_equal(json.data, "[]\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_form_has_the_same_rows),
		cmocka_unit_test(fields_of_json_are_chosen),
		cmocka_unit_test(what_contradicts_is_refused),
		cmocka_unit_test(nothing_is_said_to_people_and_is_empty_to_programs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
