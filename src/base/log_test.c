#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
/* What the lines say, without their times. */
static void catch_lines(void (*speak)(void), struct buf *out)
{
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	int saved = dup(STDERR_FILENO);
	assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
	speak();
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	(void)close(saved);
	(void)close(ends[1]);
	char *to = buf_reserve(out, 8192);
	ssize_t got = read(ends[0], to, 8192);
	assert_true(got >= 0);
	out->len = (size_t)got;
	to[got] = '\0';
	(void)close(ends[0]);
}

static void speak_all_types(void)
{
	struct err err = {0};
	bool yes = true;

	(void)err_set(&err, ERR_IO, "disk is gone");
	log_info("hello", F("n", 7), F("u", (uint64_t)8), F("r", 0.5), F("b", yes), F("t", "plain"),
		 F("s", STR("two words")), F("err", &err), F("none", (const char *)NULL));
}

static void every_type_is_written(void **state)
{
	(void)state;
	autovar(buf) out = {0};
	int64_t at = 0;

	log_set_role("tester");
	catch_lines(speak_all_types, &out);
	struct str rest = buf_str(&out);
	struct str time_text = str_cut(&rest, ' ');
	assert_int_equal(clock_parse(time_text, &at, NULL), 0);
	assert_string_equal(rest.data, "info  tester: hello n=7 u=8 r=0.5 b=true t=plain s=\"two words\" "
				       "err=\"disk is gone\" none=-\n");
}

static void speak_hostile_text(void)
{
	log_warn("hostile", F("v", "a\n\x1b[2J\"\\=\x7f"), F("empty", ""));
}

static void one_event_is_one_line_whatever_it_holds(void **state)
{
	(void)state;
	autovar(buf) out = {0};

	catch_lines(speak_hostile_text, &out);
	assert_non_null(strstr(out.data, "v=\"a\\n\\x1b[2J\\\"\\\\=\\x7f\" empty=\"\"\n"));
	assert_ptr_equal(strchr(out.data, '\n'), out.data + out.len - 1);
}

static void speak_at_each_level(void)
{
	log_debug("d");
	log_info("i");
	log_warn("w");
	log_error("e");
}

static void what_is_below_the_level_is_not_written(void **state)
{
	(void)state;
	autovar(buf) out = {0};

	log_set_level(LOG_LEVEL_WARN);
	assert_string_equal(log_level_now(), "warn");
	catch_lines(speak_at_each_level, &out);
	log_set_level(LOG_LEVEL_INFO);
	assert_null(strstr(out.data, ": i"));
	assert_non_null(strstr(out.data, "warn  tester: w\n"));
	assert_non_null(strstr(out.data, "error tester: e\n"));
}

static void level_names(void **state)
{
	(void)state;
	enum log_level level = LOG_LEVEL_INFO;

	assert_int_equal(log_level_parse(STR("Warning"), &level, NULL), 0);
	assert_int_equal(level, LOG_LEVEL_WARN);
	assert_int_equal(log_level_parse(STR("loud"), &level, NULL), -ERR_INVALID_FIELD);
	assert_int_equal(level, LOG_LEVEL_WARN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_is_written),
		cmocka_unit_test(one_event_is_one_line_whatever_it_holds),
		cmocka_unit_test(what_is_below_the_level_is_not_written),
		cmocka_unit_test(level_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
