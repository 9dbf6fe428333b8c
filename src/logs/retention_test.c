/*
 * Retention over a day and more, with a clock of the test's. What is old is told by the files' times, which are this
 * machine's; so the clock begins now and runs ahead.
 */
#include "logs/retention.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#define HOUR_NS (3600 * NS_PER_S)
enum { ORG = 7 };

static int64_t ahead_ns;

static int64_t test_now(void)
{
	return clock_unix_ns() + ahead_ns;
}

struct fixture {
	char path[40];
	char *file;
	struct log_store *store;
	struct retention *retention;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct log_store_recovery recovery = {0};

	memcpy(f->path, "/tmp/nimbus-keep-XXXXXX", sizeof("/tmp/nimbus-keep-XXXXXX"));
	assert_non_null(mkdtemp(f->path));
	f->file = xasprintf("%s/retention.json", f->path);
	assert_int_equal(log_store_open(&(struct log_store_opts){.path = f->path}, &f->store, &recovery, NULL), 0);
	/* Its own thread looks once at the start, when there is nothing, and not again. */
	assert_int_equal(retention_new(&(struct retention_opts){.store = f->store,
								.path = f->file,
								.fallback = {.days = 1},
								.interval_ns = 1000 * HOUR_NS,
								.now = test_now},
				       &f->retention, NULL),
			 0);
	ahead_ns = 0;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	retention_free(f->retention);
	log_store_free(f->store);
	assert_int_equal(dir_remove(AT_FDCWD, f->path, NULL), 0);
	free(f->file);
	free(f);
	return 0;
}

static void write_job(struct fixture *f, int64_t job_id, bool seal)
{
	struct log_line line = {.job_id = job_id, .attempt = 1, .seq = 1, .message = STR("a line")};
	struct log_append done = {0};

	assert_int_equal(log_store_append(f->store, ORG, &line, 1, &done, NULL), 0);
	if (seal)
		assert_int_equal(log_store_seal(f->store,
						&(struct segment_key){.org_id = ORG, .job_id = job_id, .attempt = 1}, 1,
						NULL),
				 0);
	assert_int_equal(log_store_flush(f->store, NULL), 0);
}

static size_t sweep(struct fixture *f)
{
	struct retention_dropped dropped = {0};

	assert_int_equal(retention_sweep(f->retention, ORG, &dropped, NULL), 0);
	return dropped.attempts;
}

static size_t stored(struct fixture *f)
{
	autovar(log_list) list = {0};

	assert_int_equal(log_store_list(f->store, ORG, 0, &list, NULL), 0);
	return list.count;
}

static void a_log_is_kept_for_its_day_and_no_longer(void **state)
{
	struct fixture *f = *state;

	write_job(f, 1, true);
	for (int hour = 0; hour < 24; hour++) {
		ahead_ns = hour * HOUR_NS;
		assert_int_equal(sweep(f), 0);
		assert_int_equal(stored(f), 1);
	}
	ahead_ns = 24 * HOUR_NS + 60 * NS_PER_S;
	assert_int_equal(sweep(f), 1);
	assert_int_equal(sweep(f), 0);
	assert_int_equal(stored(f), 0);
}

/* Of an organisation with limits of its own, and of one whose clock went back. */
static void limits_and_clocks_change(void **state)
{
	struct fixture *f = *state;

	write_job(f, 1, true);
	assert_int_equal(retention_set(f->retention, ORG, &(struct retention_limits){.days = 3}, NULL), 0);
	ahead_ns = 48 * HOUR_NS;
	assert_int_equal(sweep(f), 0);
	ahead_ns = -48 * HOUR_NS;
	assert_int_equal(sweep(f), 0);
	assert_int_equal(retention_set(f->retention, ORG, NULL, NULL), 0);
	assert_int_equal(sweep(f), 0);
	ahead_ns = 48 * HOUR_NS;
	assert_int_equal(sweep(f), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_log_is_kept_for_its_day_and_no_longer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(limits_and_clocks_change, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
