/* A job's network on a loop: with the real passt where it is installed, and with stand-ins for what can go wrong. */
#include "shim/network.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/passt.h"

struct seen {
	bool ready;
	bool failed;
	bool gone;
	struct err err;
};

static void on_ready(void *ctx)
{
	((struct seen *)ctx)->ready = true;
}

static void on_failed(void *ctx, const struct err *err)
{
	struct seen *s = ctx;

	s->failed = true;
	s->err = *err;
}

static void on_gone(void *ctx, const struct err *err)
{
	struct seen *s = ctx;

	s->gone = true;
	s->err = *err;
}

static const struct network_ops ops = {.ready = on_ready, .failed = on_failed, .gone = on_gone};

static void turn_until(struct loop *loop, const bool *flag, const bool *other)
{
	while (!*flag && !*other)
		assert_int_equal(loop_step(loop, clock_monotonic_ns() + 20 * NS_PER_S, NULL), 0);
}

/* A folder that alone is searched for programs; `script` is passt there, or NULL. */
static void use_path(char dir[static 32], const char *script)
{
	(void)snprintf(dir, 32, "/tmp/network-test.XXXXXX");
	assert_non_null(mkdtemp(dir));
	if (script != NULL) {
		autofree char *file = xasprintf("%s/" PASST_PROGRAM, dir);
		assert_int_equal(file_write_atomic(AT_FDCWD, file, str_c(script), 0755, NULL), 0);
	}
	assert_int_equal(setenv("PATH", dir, 1), 0);
}

static void drop_path(const char *dir, const char *old)
{
	autofree char *file = xasprintf("%s/" PASST_PROGRAM, dir);

	(void)unlink(file);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(setenv("PATH", old, 1), 0);
}

static void a_missing_passt_names_its_package(void **state)
{
	autofree char *old = xstrdup(getenv("PATH"));
	autoptr(loop) loop = NULL;
	autoptr(network) n = NULL;
	struct seen seen = {0};
	char dir[32];
	struct err err = {0};

	(void)state;
	assert_int_equal(loop_new(&loop, NULL), 0);
	use_path(dir, NULL);
	assert_int_equal(network_start(loop, &ops, &seen, &n, &err), -ERR_UNAVAILABLE);
	drop_path(dir, old);
	assert_non_null(strstr(err.msg, "apt-get install passt"));
}

static void one_that_ends_at_once_has_its_words_told(void **state)
{
	autofree char *old = xstrdup(getenv("PATH"));
	autoptr(loop) loop = NULL;
	autoptr(network) n = NULL;
	struct seen seen = {0};
	char dir[32];

	(void)state;
	assert_int_equal(loop_new(&loop, NULL), 0);
	use_path(dir, "#!/bin/sh\necho 'Failed to send 5 bytes to syslog' >&2\necho 'No way out' >&2\nexit 1\n");
	struct err err = {0};
	if (network_start(loop, &ops, &seen, &n, &err) < 0)
		fail_msg("%s", err.msg);
	turn_until(loop, &seen.failed, &seen.ready);
	drop_path(dir, old);
	assert_false(seen.ready);
	assert_string_equal(seen.err.msg, "network 'open': passt did not start on this host: No way out");
}

static bool real_one_works(struct loop *loop, struct seen *seen, struct network **ret)
{
	struct err err = {0};

	if (network_start(loop, &ops, seen, ret, &err) < 0) {
		print_message("skipped: %s\n", err.msg);
		return false;
	}
	turn_until(loop, &seen->ready, &seen->failed);
	if (seen->failed)
		print_message("skipped: %s\n", seen->err.msg);
	return seen->ready;
}

static void the_real_ones_end_is_noticed(void **state)
{
	autoptr(loop) loop = NULL;
	autoptr(network) n = NULL;
	struct seen seen = {0};

	(void)state;
	assert_int_equal(loop_new(&loop, NULL), 0);
	if (!real_one_works(loop, &seen, &n)) {
		network_free(TAKE(n));
		skip();
	}
	assert_true(network_vm_fd(n) >= 0);
	assert_int_equal(network_address(n)->address, 0x0a00020f);
	/* As when the VM's end is closed. */
	network_given(n);
	turn_until(loop, &seen.gone, &seen.failed);
	assert_non_null(strstr(seen.err.msg, "passt has ended"));
}

static void what_is_let_go_ends_without_a_word(void **state)
{
	autoptr(loop) loop = NULL;
	autoptr(network) n = NULL;
	struct seen seen = {0};

	(void)state;
	assert_int_equal(loop_new(&loop, NULL), 0);
	if (!real_one_works(loop, &seen, &n)) {
		network_free(TAKE(n));
		skip();
	}
	network_let_go(n);
	network_given(n);
	int64_t until_ns = clock_monotonic_ns() + 200 * NS_PER_MS;
	while (loop_step(loop, until_ns, NULL) == 0)
		continue;
	assert_false(seen.gone);
	assert_false(seen.failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_missing_passt_names_its_package),
		cmocka_unit_test(one_that_ends_at_once_has_its_words_told),
		cmocka_unit_test(the_real_ones_end_is_noticed),
		cmocka_unit_test(what_is_let_go_ends_without_a_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
