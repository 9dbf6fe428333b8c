#include "shim/patience.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"

static const struct {
	const char *why;
	bool clone;
	double load;
	long cpus;
	int64_t want_s;
} cases[] = {
	{"a boot on a machine with nothing to do", false, 0, 2, 20},
	{"a clone on one", true, 0, 2, 5},
	{"a load of all its CPUs costs nobody any time", true, 2, 2, 5},
	{"three times as much to do as there are CPUs", true, 6, 2, 15},
	{"a boot beside it", false, 6, 2, 60},
	{"never above the most: a clone", true, 1000, 2, 60},
	{"a boot", false, 1000, 2, 60},
	{"a load that nobody knows", false, -1, 2, 20},
	{"CPUs that nobody knows", true, 1000, -1, 5},
	{"no CPU", true, 1000, 0, 5},
};

static void it_grows_with_what_the_machine_has_to_do(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int64_t got_ns = patience_ns(cases[i].clone, cases[i].load, cases[i].cpus);
		if (got_ns != cases[i].want_s * NS_PER_S)
			fail_msg("%s: %lld ns, not %lld s", cases[i].why, (long long)got_ns,
				 (long long)cases[i].want_s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_grows_with_what_the_machine_has_to_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
