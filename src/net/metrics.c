#include "net/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

struct bucket {
	_Atomic uint64_t count;
};

/* One series: a counter counts; a gauge is a real number; a histogram counts per bucket, and sums. */
struct series {
	_Atomic uint64_t count;
	_Atomic double real;
	struct bucket *buckets; /* not cumulative; what is over the last bound is only in count */
};

struct metrics {
	const struct metric *table;
	size_t count;
	struct series **series; /* per metric, one per label value */
	int64_t started_at;
};

static size_t series_count(const struct metric *metric)
{
	size_t count = 0;

	if (metric->label == NULL)
		return 1;
	while (metric->values[count] != NULL)
		count++;
	return count;
}

static size_t bucket_count(const struct metric *metric)
{
	size_t count = 0;

	while (metric->buckets != NULL && metric->buckets[count] > 0)
		count++;
	return count;
}

struct metrics *metrics_new(const struct metric *table, size_t count)
{
	struct metrics *m = xcalloc(1, sizeof(*m));

	m->table = table;
	m->count = count;
	m->started_at = clock_unix_ns();
	m->series = xcalloc(count, sizeof(*m->series));
	for (size_t i = 0; i < count; i++) {
		size_t n = series_count(&table[i]);
		m->series[i] = xcalloc(n, sizeof(**m->series));
		for (size_t k = 0; k < n && table[i].type == METRIC_HISTOGRAM; k++)
			m->series[i][k].buckets = xcalloc(bucket_count(&table[i]), sizeof(struct bucket));
	}
	return m;
}

void metrics_free(struct metrics *m)
{
	if (m == NULL)
		return;
	for (size_t i = 0; i < m->count; i++) {
		for (size_t k = 0; k < series_count(&m->table[i]); k++)
			free(m->series[i][k].buckets);
		free(m->series[i]);
	}
	free(m->series);
	free(m);
}

static struct series *find(struct metrics *m, size_t id, size_t value, enum metric_type type)
{
	assert(id < m->count && m->table[id].type == type && value < series_count(&m->table[id]));
	return &m->series[id][value];
}

static void add_real(_Atomic double *to, double delta)
{
	double old = atomic_load_explicit(to, memory_order_relaxed);

	while (!atomic_compare_exchange_weak_explicit(to, &old, old + delta, memory_order_relaxed,
						      memory_order_relaxed))
		;
}

void metrics_add_at(struct metrics *m, size_t id, size_t value, uint64_t n)
{
	atomic_fetch_add_explicit(&find(m, id, value, METRIC_COUNTER)->count, n, memory_order_relaxed);
}

void metrics_add(struct metrics *m, size_t id, uint64_t n)
{
	metrics_add_at(m, id, 0, n);
}

void metrics_inc(struct metrics *m, size_t id)
{
	metrics_add_at(m, id, 0, 1);
}

void metrics_set_at(struct metrics *m, size_t id, size_t value, double number)
{
	atomic_store_explicit(&find(m, id, value, METRIC_GAUGE)->real, number, memory_order_relaxed);
}

void metrics_set(struct metrics *m, size_t id, double number)
{
	metrics_set_at(m, id, 0, number);
}

void metrics_move(struct metrics *m, size_t id, double delta)
{
	add_real(&find(m, id, 0, METRIC_GAUGE)->real, delta);
}

void metrics_observe(struct metrics *m, size_t id, double number)
{
	const struct metric *metric = &m->table[id];
	struct series *series = find(m, id, 0, METRIC_HISTOGRAM);

	for (size_t i = 0; i < bucket_count(metric); i++) {
		if (number <= metric->buckets[i]) {
			atomic_fetch_add_explicit(&series->buckets[i].count, 1, memory_order_relaxed);
			break;
		}
	}
	add_real(&series->real, number);
	atomic_fetch_add_explicit(&series->count, 1, memory_order_relaxed);
}

void metrics_observe_ns(struct metrics *m, size_t id, int64_t duration_ns)
{
	metrics_observe(m, id, (double)duration_ns / (double)NS_PER_S);
}

double metrics_get(struct metrics *m, size_t id)
{
	double sum = 0;

	assert(id < m->count);
	for (size_t k = 0; k < series_count(&m->table[id]); k++) {
		struct series *series = &m->series[id][k];
		sum += m->table[id].type == METRIC_GAUGE ? atomic_load(&series->real)
							 : (double)atomic_load(&series->count);
	}
	return sum;
}

/* --- exposition --- */

static const char *const type_names[] = {
	[METRIC_COUNTER] = "counter",
	[METRIC_GAUGE] = "gauge",
	[METRIC_HISTOGRAM] = "histogram",
};

/* Whole numbers as such, without the exponent that %g would take to. */
static void put_real(struct buf *out, double number)
{
	if (number >= -1e15 && number <= 1e15 && number == (double)(int64_t)number)
		buf_printf(out, "%" PRId64 "\n", (int64_t)number);
	else
		buf_printf(out, "%.13g\n", number);
}

static void put_head(struct buf *out, const char *name, enum metric_type type, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type_names[type]);
}

static void put_histogram(struct buf *out, const struct metric *metric, struct series *series)
{
	uint64_t below = 0;

	for (size_t i = 0; i < bucket_count(metric); i++) {
		below += atomic_load(&series->buckets[i].count);
		buf_printf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", metric->name, metric->buckets[i], below);
	}
	/* Read last, and so never less than the buckets below it: observing counts the bucket first. */
	uint64_t all = atomic_load(&series->count);
	if (all < below)
		all = below;
	buf_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", metric->name, all);
	buf_printf(out, "%s_sum %.9g\n", metric->name, atomic_load(&series->real));
	buf_printf(out, "%s_count %" PRIu64 "\n", metric->name, all);
}

static void put_series(struct buf *out, const struct metric *metric, struct series *series, size_t value)
{
	buf_puts(out, metric->name);
	if (metric->label != NULL)
		buf_printf(out, "{%s=\"%s\"}", metric->label, metric->values[value]);
	buf_putc(out, ' ');
	if (metric->type == METRIC_COUNTER)
		buf_printf(out, "%" PRIu64 "\n", atomic_load(&series->count));
	else
		put_real(out, atomic_load(&series->real));
}

static double resident_bytes(void)
{
	autovar(buf) text = {0};
	int64_t resident = 0;

	if (file_read(AT_FDCWD, "/proc/self/statm", 4096, &text, NULL) < 0)
		return 0;
	struct str rest = buf_str(&text); /* size, resident, ... in pages: proc(5) */
	(void)str_cut(&rest, ' ');
	if (str_to_i64(str_cut(&rest, ' '), "resident", 0, INT64_MAX, &resident, NULL) < 0)
		return 0;
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t count = 0;

	if (dir == NULL)
		return 0;
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
		count += entry->d_name[0] != '.';
	(void)closedir(dir);
	return (double)(count - 1); /* without the one that counts */
}

static double cpu_seconds(void)
{
	struct rusage usage = {0};

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void put_process(struct buf *out, int64_t started_at)
{
	struct rlimit files = {0};

	(void)getrlimit(RLIMIT_NOFILE, &files);
	const struct {
		const char *name;
		enum metric_type type;
		const char *help;
		double number;
	} lines[] = {
		{"process_cpu_seconds_total", METRIC_COUNTER, "CPU time, user and system", cpu_seconds()},
		{"process_open_fds", METRIC_GAUGE, "open file descriptors", open_descriptors()},
		{"process_max_fds", METRIC_GAUGE, "limit of open file descriptors", (double)files.rlim_cur},
		{"process_resident_memory_bytes", METRIC_GAUGE, "resident memory", resident_bytes()},
		{"process_start_time_seconds", METRIC_GAUGE, "when it started, in Unix time",
		 (double)started_at / (double)NS_PER_S},
	};
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		put_head(out, lines[i].name, lines[i].type, lines[i].help);
		buf_printf(out, "%s ", lines[i].name);
		put_real(out, lines[i].number);
	}
}

void metrics_write_numbers(const struct metric *table, size_t count, const double *numbers, struct buf *out)
{
	for (size_t i = 0; i < count; i++) {
		const struct metric *metric = &table[i];
		put_head(out, metric->name, metric->type, metric->help);
		for (size_t k = 0; k < series_count(metric); k++) {
			buf_puts(out, metric->name);
			if (metric->label != NULL)
				buf_printf(out, "{%s=\"%s\"}", metric->label, metric->values[k]);
			buf_putc(out, ' ');
			put_real(out, *numbers++);
		}
	}
}

void metrics_write(struct metrics *m, struct buf *out)
{
	for (size_t i = 0; i < m->count; i++) {
		const struct metric *metric = &m->table[i];
		put_head(out, metric->name, metric->type, metric->help);
		for (size_t k = 0; k < series_count(metric); k++) {
			if (metric->type == METRIC_HISTOGRAM)
				put_histogram(out, metric, &m->series[i][k]);
			else
				put_series(out, metric, &m->series[i][k], k);
		}
	}
	put_process(out, m->started_at);
}
