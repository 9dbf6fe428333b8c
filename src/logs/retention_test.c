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
#include <sys/stat.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "logs/segment_file.h"
#include "model/limits.h"

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

/* --- two days, a job each hour --- */

enum { DAYS_HOURS = 48, STAYS_HOURS = 24, OPEN_JOB = 1000, BOUNDED_ORG = 9, BOUNDED_KEEPS = 5 };
/* A job runs for so long at most, and what it said may be on its way for another while. */
enum { OPEN_HOURS = (JOB_TIMEOUT_S_MAX + LOG_TOKEN_EXTRA_S) / 3600 };

/* The file of a log says when it was written to last: the test's clock says so, too. */
static void date_log(struct fixture *f, int64_t org_id, int64_t job_id)
{
	const struct segment_key key = {.org_id = org_id, .job_id = job_id, .attempt = 1};
	char path[SEGMENT_PATH_SIZE];
	autofree char *whole = xasprintf("%s/segments/%s", f->path, segment_path(&key, path));
	const struct timespec at = {.tv_sec = test_now() / NS_PER_S};

	assert_int_equal(utimensat(AT_FDCWD, whole, (const struct timespec[]){at, at}, 0), 0);
}

static void write_dated(struct fixture *f, int64_t org_id, int64_t job_id, int64_t seq, bool seal)
{
	struct log_line line = {.job_id = job_id, .attempt = 1, .seq = seq, .message = STR("a line")};
	const struct segment_key key = {.org_id = org_id, .job_id = job_id, .attempt = 1};
	struct log_append done = {0};

	assert_int_equal(log_store_append(f->store, org_id, &line, 1, &done, NULL), 0);
	if (seal)
		assert_int_equal(log_store_seal(f->store, &key, 1, NULL), 0);
	assert_int_equal(log_store_flush(f->store, NULL), 0);
	date_log(f, org_id, job_id);
}

/* The hours whose jobs have their logs, bit by bit, and how much the logs take. */
static uint64_t hours_stored(struct fixture *f, int64_t org_id, uint64_t *ret_bytes)
{
	autovar(log_list) list = {0};
	uint64_t hours = 0;

	*ret_bytes = 0;
	assert_int_equal(log_store_list(f->store, org_id, 0, &list, NULL), 0);
	for (size_t i = 0; i < list.count; i++) {
		*ret_bytes += list.items[i].bytes;
		if (list.items[i].key.job_id != OPEN_JOB)
			hours |= UINT64_C(1) << (list.items[i].key.job_id - 1);
	}
	return hours;
}

static void sweep_of(struct fixture *f, int64_t org_id)
{
	struct retention_dropped dropped = {0};

	assert_int_equal(retention_sweep(f->retention, org_id, &dropped, NULL), 0);
}

/* From the one to the other, with both. */
static uint64_t hours_between(int from, int to)
{
	uint64_t hours = 0;

	for (int hour = from > 0 ? from : 0; hour <= to; hour++)
		hours |= UINT64_C(1) << hour;
	return hours;
}

/* One organisation has a day, another so many bytes; beside them a job writes all the time. After each hour there is
 * what there should be, and nothing else. */
static void each_hour_has_the_logs_of_its_day(void **state)
{
	struct fixture *f = *state;
	uint64_t bytes = 0;

	write_dated(f, BOUNDED_ORG, 1, 1, true);
	(void)hours_stored(f, BOUNDED_ORG, &bytes);
	const struct retention_limits bound = {.bytes = (int64_t)bytes * BOUNDED_KEEPS + (int64_t)bytes / 2};
	assert_int_equal(retention_set(f->retention, BOUNDED_ORG, &bound, NULL), 0);
	for (int hour = 0; hour < DAYS_HOURS; hour++) {
		ahead_ns = hour * HOUR_NS;
		write_dated(f, ORG, hour + 1, 1, true);
		write_dated(f, ORG, OPEN_JOB, hour + 1, false);
		if (hour > 0)
			write_dated(f, BOUNDED_ORG, hour + 1, 1, true);
		ahead_ns += HOUR_NS / 2;
		sweep_of(f, ORG);
		sweep_of(f, BOUNDED_ORG);
		assert_true(hours_stored(f, ORG, &bytes) == hours_between(hour - STAYS_HOURS + 1, hour));
		assert_true(hours_stored(f, BOUNDED_ORG, &bytes) == hours_between(hour - BOUNDED_KEEPS + 1, hour));
		assert_true(bytes <= (uint64_t)bound.bytes);
	}
	/* Nobody writes any more. The job that always did might still: it goes when it can be sent nothing more. */
	assert_int_equal(stored(f), STAYS_HOURS + 1);
	ahead_ns = (DAYS_HOURS + STAYS_HOURS) * HOUR_NS;
	assert_int_equal(sweep(f), STAYS_HOURS);
	ahead_ns = (DAYS_HOURS + OPEN_HOURS - 2) * HOUR_NS;
	assert_int_equal(sweep(f), 0);
	ahead_ns = (DAYS_HOURS + OPEN_HOURS) * HOUR_NS;
	assert_int_equal(sweep(f), 1);
	assert_int_equal(stored(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_log_is_kept_for_its_day_and_no_longer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(limits_and_clocks_change, set_up, tear_down),
		cmocka_unit_test_setup_teardown(each_hour_has_the_logs_of_its_day, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
