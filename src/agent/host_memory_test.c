#include "agent/host_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/sysinfo.h>

#include <cmocka.h>

static void there_is_some_and_not_more_than_the_host_has(void **state)
{
	struct sysinfo info;
	int64_t has = host_memory_free();

	(void)state;
	assert_int_equal(sysinfo(&info), 0);
	assert_true(has > 0 && (uint64_t)has < (uint64_t)info.totalram * info.mem_unit);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_is_some_and_not_more_than_the_host_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
