#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
static void copies_are_whole(void **state)
{
	(void)state;
	autofree char *text = xasprintf("%s-%d", "a", 1);
	autofree char *part = xmemdup0("abc", 2);
	autofree char *none = xmemdup0(NULL, 0);
	autofree int *zeros = xcalloc(4, sizeof(int));

	assert_string_equal(text, "a-1");
	assert_string_equal(part, "ab");
	assert_string_equal(none, "");
	assert_int_equal(zeros[3], 0);
}

static void size_zero_gives_memory_too(void **state)
{
	(void)state;
	autofree void *a = xmalloc(0);
	autofree void *b = xcalloc(0, 0);

	assert_non_null(a);
	assert_non_null(b);
}

enum { REACHED = 42 };

/* In a child: it must end by SIGABRT, not with a wild pointer. */
static void an_overflowing_size_aborts(void **state)
{
	(void)state;
	const struct rlimit no_core = {0, 0};
	volatile size_t huge = SIZE_MAX / 2;
	int status = 0;

	pid_t child = fork();
	if (child == 0) {
		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)!freopen("/dev/null", "w", stderr);
		(void)signal(SIGABRT, SIG_DFL);
		void *p = xreallocarray(NULL, huge, 16);
		free(p);
		_exit(REACHED);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	/* A sanitizer may end it in its own way. */
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == REACHED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies_are_whole),
		cmocka_unit_test(size_zero_gives_memory_too),
		cmocka_unit_test(an_overflowing_size_aborts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
