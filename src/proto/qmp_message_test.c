#include "proto/qmp_message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static void what_qemu_says_is_sorted(void **state)
{
	static const struct {
		const char *line;
		enum qmp_type type;
		const char *text;
	} cases[] = {
		{"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}", QMP_GREETING, ""},
		{"{\"return\": {}}", QMP_DONE, ""},
		{"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}", QMP_FAILED,
		 "no such thing"},
		{"{\"error\": 7}", QMP_FAILED, "it does not say why"},
		{"{\"event\": \"STOP\", \"data\": {}}", QMP_EVENT, "STOP"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(qmp_message) m = {0};
		assert_int_equal(qmp_message_decode(str_c(cases[i].line), &m, NULL), 0);
		assert_int_equal(m.type, cases[i].type);
		assert_string_equal(m.text, cases[i].text);
	}
}

static void what_an_event_carries_is_found(void **state)
{
	autovar(qmp_message) m = {0};
	const char *line = "{\"timestamp\": {\"seconds\": 1}, \"event\": \"BLOCK_IO_ERROR\", "
			   "\"data\": {\"nospace\": true, \"action\": \"stop\"}}";

	(void)state;
	assert_int_equal(qmp_message_decode(str_c(line), &m, NULL), 0);
	assert_string_equal(js_text(js_get(m.data, "action"), ""), "stop");
}

static void nonsense_is_refused(void **state)
{
	static const char *const lines[] = {
		"", "x", "[]", "7", "null", "{}", "{\"event\": 7}", "{\"event\": null}", "{\"return\": {}",
	};
	struct err err = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		struct qmp_message m = {.text = "untouched"};
		assert_true(qmp_message_decode(str_c(lines[i]), &m, &err) < 0);
		assert_string_equal(m.text, "untouched");
	}
}

static void a_long_line_is_not_even_parsed(void **state)
{
	autofree char *line = xmalloc(QMP_LINE_MAX + 1);
	struct qmp_message m;
	struct err err = {0};

	(void)state;
	memset(line, ' ', QMP_LINE_MAX + 1);
	assert_int_equal(qmp_message_decode((struct str){line, QMP_LINE_MAX + 1}, &m, &err), -ERR_TOO_LARGE);
}

static void a_command_is_one_line(void **state)
{
	autovar(buf) out = {0};
	struct js *arguments = js_new_object();

	(void)state;
	js_set(arguments, "uri", js_new_text("a\nb"));
	qmp_command_encode("cont", NULL, &out);
	qmp_command_encode("migrate", arguments, &out);
	assert_string_equal(out.data, "{\"execute\":\"cont\"}\n"
				      "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"a\\nb\"}}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_qemu_says_is_sorted), cmocka_unit_test(what_an_event_carries_is_found),
		cmocka_unit_test(nonsense_is_refused),	    cmocka_unit_test(a_long_line_is_not_even_parsed),
		cmocka_unit_test(a_command_is_one_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
