#include "cli/top_page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

static const struct screen screen = {.tty = true, .width = 100};

static struct js *overview(size_t agents, size_t jobs)
{
	autovar(buf) text = {0};
	struct js *v = NULL;

	buf_puts(&text, "{\"at\":\"2026-11-21T12:00:05Z\",\"oldest_queued_at\":\"2026-11-21T12:00:02Z\","
			"\"queue_length\":3,\"jobs_by_status\":{\"queued\":3,\"running\":2},\"agents\":[");
	for (size_t i = 0; i < agents; i++)
		buf_printf(&text, "%s{\"agent_id\":\"host-%zu\",\"state\":\"online\",\"jobs\":1}", i > 0 ? "," : "", i);
	buf_puts(&text, "],\"running\":[");
	for (size_t i = 0; i < jobs; i++)
		buf_printf(&text, "%s{\"id\":%zu,\"state\":\"running\",\"name\":\"job\\u001b[2J\"}", i > 0 ? "," : "",
			   i);
	buf_puts(&text, "]}");
	assert_int_equal(js_parse(buf_str(&text), &v, NULL), 0);
	return v;
}

static size_t lines_of(const struct buf *text)
{
	size_t count = 0;

	for (size_t i = 0; i < text->len; i++)
		count += text->data[i] == '\n';
	return count;
}

static void a_page_fits_its_terminal(void **state)
{
	(void)state;
	autoptr(js) v = overview(40, 100);

	for (size_t rows = 12; rows < 60; rows++) {
		autovar(buf) out = {0};

		assert_int_equal(top_page_put(&(struct top_page){.overview = v, .rows = rows}, &screen, &out, NULL), 0);
		assert_true(lines_of(&out) <= rows);
	}
	autovar(buf) all = {0};
	assert_int_equal(top_page_put(&(struct top_page){.overview = v, .rows = SIZE_MAX}, &screen, &all, NULL), 0);
	assert_non_null(strstr(all.data, "host-39"));
	assert_null(strstr(all.data, "more"));
}

static void it_says_what_there_is(void **state)
{
	(void)state;
	autoptr(js) v = overview(1, 1);
	autovar(buf) out = {0};

	assert_int_equal(top_page_put(&(struct top_page){.overview = v, .rows = 24}, &screen, &out, NULL), 0);
	assert_non_null(strstr(out.data, "queue 3, the oldest for 3.00 s; 1 agents, 1 live jobs"));
	assert_non_null(strstr(out.data, "queued 3  running 2"));
	assert_non_null(strstr(out.data, "host-0"));
	assert_null(strchr(out.data, '\x1b'));
}

static void trouble_stands_above_what_was_known(void **state)
{
	(void)state;
	autoptr(js) v = overview(1, 0);
	struct top_page page = {.trouble = "connection refused\x1b[2J", .trouble_ns = 5 * NS_PER_S, .rows = 24};
	autovar(buf) out = {0};

	assert_int_equal(top_page_put(&page, &screen, &out, NULL), 0);
	assert_int_equal(lines_of(&out), 1);
	page.overview = v;
	assert_int_equal(top_page_put(&page, &screen, &out, NULL), 0);
	assert_non_null(strstr(out.data, "not up to date for 5.00 s: connection refused"));
	assert_null(strchr(out.data, '\x1b'));
	/* An answer of something else is no reason to fall over. */
	autoptr(js) odd = js_new_array();
	assert_int_equal(top_page_put(&(struct top_page){.overview = odd, .rows = 1}, &screen, &out, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_page_fits_its_terminal),
		cmocka_unit_test(it_says_what_there_is),
		cmocka_unit_test(trouble_stands_above_what_was_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
