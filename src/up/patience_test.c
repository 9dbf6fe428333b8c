/*
 * When a starting role counts as hung, and what puts that off.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "up/patience.h"

#define S NS_PER_S

static void hear(struct patience *p, const char *text, int64_t now_ns)
{
	patience_hear(p, str_c(text), now_ns);
}

static void silence_ends_it(void **state)
{
	(void)state;
	struct patience p;

	patience_begin(&p, 120 * S, 1000 * S);
	assert_false(patience_ended(&p, 1000 * S));
	assert_false(patience_ended(&p, 1120 * S - 1));
	assert_true(patience_ended(&p, 1120 * S));
	assert_string_equal(p.words, "");
}

static void a_sign_of_life_begins_it_anew(void **state)
{
	(void)state;
	struct patience p;

	patience_begin(&p, 120 * S, 0);
	hear(&p, "0 migrated control\n", 100 * S);
	assert_string_equal(p.words, "migrated control");
	assert_false(patience_ended(&p, 219 * S));
	assert_true(patience_ended(&p, 220 * S));
	/* Also a short claim, and one that comes late. */
	hear(&p, "1 reading\n", 300 * S);
	assert_false(patience_ended(&p, 419 * S));
	assert_true(patience_ended(&p, 420 * S));
}

static void what_takes_long_gets_the_time_that_it_asks_for(void **state)
{
	(void)state;
	struct patience p;

	patience_begin(&p, 120 * S, 0);
	hear(&p, "86400 migrating control: 0009_job_image\n", 10 * S);
	assert_false(patience_ended(&p, 86409 * S));
	assert_true(patience_ended(&p, 86410 * S));
	/* What comes after it has no claim to the rest. */
	hear(&p, "0 migrated control\n", 20 * S);
	assert_false(patience_ended(&p, 139 * S));
	assert_true(patience_ended(&p, 140 * S));
}

static void pieces_are_put_together(void **state)
{
	(void)state;
	struct patience p;

	patience_begin(&p, 10 * S, 0);
	hear(&p, "6", S);
	hear(&p, "00 wai", 2 * S);
	assert_true(patience_ended(&p, 10 * S));
	hear(&p, "ting\n0 do", 3 * S);
	assert_string_equal(p.words, "waiting");
	assert_false(patience_ended(&p, 602 * S));
	hear(&p, "ne\n", 4 * S);
	assert_string_equal(p.words, "done");
	assert_true(patience_ended(&p, 14 * S));
}

static void nonsense_is_a_sign_of_life_and_no_more(void **state)
{
	(void)state;
	struct patience p;
	static const char *const lines[] = {"\n",
					    "hello\n",
					    "-5 back\n",
					    "9999999999 long\n",
					    "12x so\n",
					    " 60 ahead\n",
					    "99999999999999999999 x\n"};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		patience_begin(&p, 10 * S, 0);
		hear(&p, lines[i], 5 * S);
		assert_false(patience_ended(&p, 15 * S - 1));
		assert_true(patience_ended(&p, 15 * S));
	}
	assert_string_equal(p.words, "99999999999999999999 x");
	char endless[1000];
	memset(endless, '7', sizeof(endless));
	patience_begin(&p, 10 * S, 0);
	for (int i = 0; i < 100; i++)
		patience_hear(&p, (struct str){endless, sizeof(endless)}, S);
	assert_true(patience_ended(&p, 10 * S));
	hear(&p, "\n", 20 * S);
	assert_true(patience_ended(&p, 30 * S));
}

/* --- what a role says is what is heard --- */

static void say(struct patience *p, int64_t within_ns, const char *words, int64_t now_ns)
{
	int fds[2];
	char bytes[1024];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	autofree char *number = xasprintf("%d", fds[1]);
	assert_int_equal(setenv(SIGN_VARIABLE, number, 1), 0);
	sign_give(within_ns, words);
	assert_int_equal(unsetenv(SIGN_VARIABLE), 0);
	fd_close(&fds[1]);
	ssize_t len = read(fds[0], bytes, sizeof(bytes));
	assert_true(len > 0 && len <= SIGN_LINE_MAX);
	assert_int_equal(bytes[len - 1], '\n');
	fd_close(&fds[0]);
	patience_hear(p, (struct str){bytes, (size_t)len}, now_ns);
}

static void a_roles_signs_are_understood(void **state)
{
	(void)state;
	struct patience p;
	char longest[2 * SIGN_LINE_MAX];

	patience_begin(&p, 10 * S, 0);
	say(&p, 3600 * S, "migrating agent: 0002_agent_jobs_by_agent", S);
	assert_string_equal(p.words, "migrating agent: 0002_agent_jobs_by_agent");
	assert_false(patience_ended(&p, 3600 * S));
	assert_true(patience_ended(&p, 3601 * S));
	memset(longest, 'w', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	say(&p, 60 * S, longest, 2 * S);
	assert_true(patience_ended(&p, 62 * S) && !patience_ended(&p, 61 * S));
	say(&p, 0, "", 3 * S);
	assert_string_equal(p.words, "");
	assert_true(patience_ended(&p, 13 * S));
}

/* A child of a role has the variable, and under that number something else or nothing. */
static void where_nobody_waits_nothing_is_written(void **state)
{
	(void)state;
	char path[] = "/tmp/nimbus-sign-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	autofree char *number = xasprintf("%d", fd);
	assert_int_equal(setenv(SIGN_VARIABLE, number, 1), 0);
	sign_give(S, "into a file");
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
	fd_close(&fd);
	sign_give(S, "into nothing");
	assert_int_equal(setenv(SIGN_VARIABLE, "many", 1), 0);
	sign_give(S, "into nonsense");
	assert_int_equal(unsetenv(SIGN_VARIABLE), 0);
	sign_give(S, "to nobody");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(silence_ends_it),
		cmocka_unit_test(a_sign_of_life_begins_it_anew),
		cmocka_unit_test(what_takes_long_gets_the_time_that_it_asks_for),
		cmocka_unit_test(pieces_are_put_together),
		cmocka_unit_test(nonsense_is_a_sign_of_life_and_no_more),
		cmocka_unit_test(a_roles_signs_are_understood),
		cmocka_unit_test(where_nobody_waits_nothing_is_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
