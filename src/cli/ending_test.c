#include "cli/ending.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

static void the_exit_status_is_the_process_s_own(void **state)
{
	(void)state;
	static const struct {
		struct attach_end end;
		int status;
	} cases[] = {
		{{.code = 0, .reason = "exit"}, 0},
		{{.code = 3, .reason = "exit"}, 3},
		{{.code = 255, .reason = "exit"}, 255},
		{{.code = 0, .reason = "exit", .incomplete = true}, 125},
		{{.code = 3, .reason = "exit", .incomplete = true}, 3},
		{{.code = 0, .signal = SIGSEGV, .reason = "signal", .incomplete = true}, 139},
		{{.code = -1, .signal = SIGKILL, .reason = "signal"}, 137},
		{{.code = 0, .signal = SIGSEGV, .reason = "signal"}, 139},
		{{.code = -1, .signal = SIGKILL, .reason = "timeout"}, 124},
		{{.code = -1, .signal = SIGTERM, .reason = "cancelled", .cancelled = true}, 130},
		{{.code = -1, .signal = SIGTERM, .reason = "cancelled"}, 125},
		{{.code = 0, .reason = "exit", .cancelled = true}, 0},
		{{.code = -1, .reason = "start_failed"}, 125},
		{{.code = 70000, .reason = "exit"}, 125},
		{{.code = -1, .signal = 4000, .reason = "signal"}, 125},
		{{.code = -1, .left = SIGHUP}, 129},
		{{.code = 0, .left = SIGINT}, 130},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(ending_status(&cases[i].end), cases[i].status);
}

static void the_times_are_told_as_far_as_they_are_known(void **state)
{
	(void)state;
	static const struct {
		struct attach_end end;
		const char *text;
	} cases[] = {
		{{.queued_ns = 3100000, .vm_ns = 70600000, .ran_ns = 1234 * NS_PER_MS, .gone_ns = 9 * NS_PER_MS},
		 "queued 3 ms · vm 71 ms · ran 1.2 s · gone 9 ms"},
		{{.queued_ns = 0, .vm_ns = -1, .ran_ns = 192 * NS_PER_S, .gone_ns = -1},
		 "queued 0 ms · ran 3 min 12 s"},
		{{.queued_ns = -1, .vm_ns = -1, .ran_ns = -1, .gone_ns = -1}, ""},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) text = {0};
		ending_times(&cases[i].end, &text);
		assert_string_equal(text.len > 0 ? text.data : "", cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_exit_status_is_the_process_s_own),
		cmocka_unit_test(the_times_are_told_as_far_as_they_are_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
