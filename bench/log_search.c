/*
 * Reading one large log. usage: log_search FOLDER [LINES [LINES_PER_BATCH]]
 *
 * Fills a store with one job of build-like lines of 120 bytes, writes the same lines as plain text to FOLDER/plain.log
 * (what a floor is measured on), closes the store, and measures: one line at nine tenths from a store that was just
 * opened, then from the open one; and searches of the whole for what is not there, so that nothing stops them, in
 * bytes of text a second of CPU. One object of JSON on standard output.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "bench_lines.h"
#include "logs/query.h"
#include "logs/store.h"

enum { SEEKS = 1000, SEARCHES = 5 };

static const struct segment_key key = {.org_id = 1, .job_id = 1, .attempt = 1};

static noreturn_fn void die(const struct err *err)
{
	(void)fprintf(stderr, "log_search: %s\n", err->msg);
	exit(1);
}

static struct log_store *open_store(const char *folder)
{
	autofree char *path = xasprintf("%s/store", folder);
	struct log_store_recovery recovery;
	struct log_store *store = NULL;
	struct err err = {0};

	if (log_store_open(&(struct log_store_opts){.path = path}, &store, &recovery, &err) < 0)
		die(&err);
	return store;
}

static void fill(const char *folder, int64_t lines, int64_t per_batch)
{
	autofree char *path = xasprintf("%s/plain.log", folder);
	struct log_store *store = open_store(folder);
	autofree struct log_line *batch = xcalloc((size_t)per_batch, sizeof(*batch));
	autofree char *texts = xreallocarray(NULL, (size_t)per_batch, BENCH_LINE_SIZE);
	FILE *plain = fopen(path, "we");
	struct log_append done;
	struct err err = {0};

	if (plain == NULL) {
		(void)err_sys(&err, "create %s", path);
		die(&err);
	}
	for (int64_t first = 1; first <= lines; first += per_batch) {
		size_t count = 0;
		for (int64_t seq = first; seq <= lines && seq < first + per_batch; seq++, count++) {
			char *text = texts + count * BENCH_LINE_SIZE;
			bench_line(text, key.job_id, seq);
			(void)fprintf(plain, "%.*s\n", BENCH_LINE_SIZE, text);
			batch[count] = bench_log_line(text, key.job_id, seq);
		}
		if (log_store_append(store, key.org_id, batch, count, &done, &err) < 0)
			die(&err);
	}
	if (log_store_seal(store, &key, lines, &err) < 0 || log_store_close(store, &err) < 0)
		die(&err);
	(void)fclose(plain);
}

/* The line itself, not only its block. */
static void seek(struct log_store *store, int64_t seq)
{
	const struct attempts_seek to = {.seq = seq, .since_at = INT64_MIN, .until_at = INT64_MAX};
	autovar(log_reader) reader = {0};
	struct err err = {0};

	if (log_store_read(store, &key, &to, NULL, &reader, &err) != 0 ||
	    reader.lines.lines[seq - reader.block.first_seq].seq != seq)
		die(&err);
}

static void measure_seeks(struct log_store *store, int64_t lines)
{
	int64_t begun = clock_monotonic_ns();

	seek(store, lines / 10 * 9);
	int64_t first_ns = clock_monotonic_ns() - begun;
	begun = clock_monotonic_ns();
	for (int64_t i = 0; i < SEEKS; i++)
		seek(store, 1 + (i * 7919) % lines);
	(void)printf("\"seek_first_ms\": %.3f, \"seek_ms\": %.3f, ", (double)first_ns / 1e6,
		     (double)(clock_monotonic_ns() - begun) / 1e6 / SEEKS);
}

static int64_t cpu_ns(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NS_PER_S +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * NS_PER_US;
}

/* The best of several: this machine has other things to do. */
static void measure_search(struct log_store *store, int64_t lines, const char *name, struct log_filter filter,
			   const char *end)
{
	int64_t best_ns = INT64_MAX;

	for (int i = 0; i < SEARCHES; i++) {
		const struct log_query q = {
			.org_id = key.org_id,
			.job_id = key.job_id,
			.attempt = key.attempt,
			.filter = filter,
			.oldest_first = true,
			.limit = 1,
			.budget = {INT64_MAX, UINT64_MAX},
		};
		autovar(log_result) found = {0};
		struct err err = {0};
		int64_t begun = cpu_ns();
		if (log_query_run(store, &q, &found, &err) < 0 || found.count != 0)
			die(&err);
		int64_t took = cpu_ns() - begun;
		best_ns = took < best_ns ? took : best_ns;
	}
	(void)printf("\"%s_gb_per_cpu_s\": %.3f%s", name, (double)lines * (BENCH_LINE_SIZE + 1) / (double)best_ns, end);
}

static int64_t number(int argc, char **argv, int at, int64_t fallback)
{
	int64_t value = fallback;
	struct err err = {0};

	if (argc > at && str_to_i64(str_c(argv[at]), "argument", 1, INT64_C(1000000000), &value, &err) < 0)
		die(&err);
	return value;
}

int main(int argc, char **argv)
{
	struct log_filter text = LOG_FILTER_ALL;
	struct log_filter level = LOG_FILTER_ALL;
	struct err err = {0};

	if (argc < 2 || dir_make(argv[1], 0700, &err) < 0) {
		(void)fprintf(stderr, "usage: log_search FOLDER [LINES [LINES_PER_BATCH]]\n");
		return 2;
	}
	int64_t lines = number(argc, argv, 2, 1000000);
	fill(argv[1], lines, number(argc, argv, 3, 2000));
	(void)printf("{\"lines\": %" PRId64 ", ", lines);
	struct log_store *store = open_store(argv[1]);
	measure_seeks(store, lines);
	text.text = (struct needle){STR("warning: unusual"), false};
	measure_search(store, lines, "exact", text, ", ");
	text.text.any_case = true;
	measure_search(store, lines, "any_case", text, ", ");
	level.level = LOG_LINE_CRITICAL;
	measure_search(store, lines, "every_line", level, "}\n");
	log_store_free(store);
	return 0;
}
