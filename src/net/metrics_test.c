#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "base/str.h"
#include "net/metrics.h"

enum { M_PLAIN, M_LABELLED, M_LEVEL, M_LATENCY };

static const struct metric table[] = {
	[M_PLAIN] = {"x_requests_total", METRIC_COUNTER, "requests answered"},
	[M_LABELLED] = {"x_refused_total", METRIC_COUNTER, "by reason", "reason",
			(const char *const[]){"ping", "no_label", NULL}},
	[M_LEVEL] = {"x_level", METRIC_GAUGE, "how much"},
	[M_LATENCY] = {"x_seconds", METRIC_HISTOGRAM, "time", .buckets = (const double[]){0.05, 1, 2.5, 0}},
};

static void numbers_are_written(void **state)
{
	static const char expected[] = "# HELP x_requests_total requests answered\n"
				       "# TYPE x_requests_total counter\n"
				       "x_requests_total 3\n"
				       "# HELP x_refused_total by reason\n"
				       "# TYPE x_refused_total counter\n"
				       "x_refused_total{reason=\"ping\"} 1\n"
				       "x_refused_total{reason=\"no_label\"} 5\n"
				       "# HELP x_level how much\n"
				       "# TYPE x_level gauge\n"
				       "x_level 2.5\n"
				       "# HELP x_seconds time\n"
				       "# TYPE x_seconds histogram\n"
				       "x_seconds_bucket{le=\"0.05\"} 1\n"
				       "x_seconds_bucket{le=\"1\"} 3\n"
				       "x_seconds_bucket{le=\"2.5\"} 3\n"
				       "x_seconds_bucket{le=\"+Inf\"} 4\n"
				       "x_seconds_sum 10.03125\n"
				       "x_seconds_count 4\n"
				       "# HELP process_";
	autoptr(metrics) m = metrics_new(table, ARRAY_LEN(table));
	autovar(buf) text = {0};

	(void)state;
	metrics_inc(m, M_PLAIN);
	metrics_add(m, M_PLAIN, 2);
	metrics_inc(m, M_LABELLED);
	metrics_add_at(m, M_LABELLED, 1, 5);
	metrics_set(m, M_LEVEL, 4);
	metrics_move(m, M_LEVEL, -1.5);
	metrics_observe_ns(m, M_LATENCY, 31250000);
	metrics_observe(m, M_LATENCY, 0.5);
	metrics_observe(m, M_LATENCY, 1);
	metrics_observe(m, M_LATENCY, 8.5);
	metrics_write(m, &text);
	assert_true(str_starts_with(buf_str(&text), str_c(expected)));
	assert_true(metrics_get(m, M_LABELLED) == 6);
	assert_true(metrics_get(m, M_LEVEL) == 2.5);
	assert_true(metrics_get(m, M_LATENCY) == 4);
}

static void the_process_is_described(void **state)
{
	static const char *const names[] = {"process_cpu_seconds_total", "process_open_fds", "process_max_fds",
					    "process_resident_memory_bytes", "process_start_time_seconds"};
	autoptr(metrics) m = metrics_new(table, 0);
	autovar(buf) text = {0};

	(void)state;
	metrics_write(m, &text);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char line[64];
		double number = 0;
		(void)snprintf(line, sizeof(line), "\n%s ", names[i]);
		const char *at = strstr(text.data, line);
		assert_non_null(at);
		assert_int_equal(sscanf(at + strlen(line), "%lf", &number), 1);
		assert_true(number >= 0);
	}
	assert_null(strstr(text.data, "process_resident_memory_bytes 0\n"));
	assert_null(strstr(text.data, "process_open_fds 0\n"));
}

enum { THREADS = 4, ROUNDS = 10000 };

static void *count(void *arg)
{
	struct metrics *m = arg;

	for (int i = 0; i < ROUNDS; i++) {
		metrics_inc(m, M_PLAIN);
		metrics_move(m, M_LEVEL, 0.5);
		metrics_observe(m, M_LATENCY, 2);
	}
	return NULL;
}

static void threads_lose_nothing(void **state)
{
	autoptr(metrics) m = metrics_new(table, ARRAY_LEN(table));
	pthread_t threads[THREADS];
	autovar(buf) text = {0};

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count, m), 0);
	metrics_write(m, &text);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_true(metrics_get(m, M_PLAIN) == THREADS * ROUNDS);
	assert_true(metrics_get(m, M_LEVEL) == 0.5 * THREADS * ROUNDS);
	assert_true(metrics_get(m, M_LATENCY) == THREADS * ROUNDS);
	buf_clear(&text);
	metrics_write(m, &text);
	assert_non_null(strstr(text.data, "x_seconds_bucket{le=\"2.5\"} 40000\n"));
	assert_non_null(strstr(text.data, "x_seconds_sum 80000\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_written),
		cmocka_unit_test(the_process_is_described),
		cmocka_unit_test(threads_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
