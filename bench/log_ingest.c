/*
 * Durable log lines per second, beside the floor: the same text through bare zstd and fdatasync, in the same run.
 *
 *	log_ingest [FOLDER [LINES [JOBS [LINES_PER_BATCH]]]]
 *
 * JOBS senders, each with a job of its own and the next batch after the answer to the last, as shims do. "store" begins
 * with lines in memory, "body" with the NDJSON of a request, "packed" with the same as a zstd body, of which "packing"
 *is the sender's part. The floor packs and writes the messages alone, one batch after the other. One object of JSON on
 *standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <zstd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/unpack.h"
#include "base/zstd.h"
#include "bench_lines.h"
#include "logs/store.h"
#include "proto/log_line.h"

struct settings {
	const char *folder;
	int64_t lines;
	int64_t jobs;
	int64_t per_batch;
};

static noreturn_fn void die(const struct err *err)
{
	(void)fprintf(stderr, "log_ingest: %s\n", err->msg);
	exit(1);
}

enum form { FORM_LINES, FORM_BODY, FORM_PACKED };

struct sender {
	const struct settings *set;
	struct log_store *store;
	int64_t job_id;
	enum form form;
	char *texts;
	struct buf *bodies; /* one a batch */
	struct buf *packed;
	pthread_t thread;
};

static int64_t lines_of_job(const struct settings *set)
{
	return set->lines / set->jobs;
}

static struct log_line line_of(const struct sender *s, int64_t seq)
{
	return bench_log_line(s->texts + (seq - 1) * BENCH_LINE_SIZE, s->job_id, seq);
}

static void send_batch(struct sender *s, int64_t first, int64_t last)
{
	struct log_append done;
	struct err err = {0};
	autoptr(arena) arena = arena_new();
	autovar(buf) unpacked = {0};
	size_t number = (size_t)((first - 1) / s->set->per_batch);
	struct log_batch batch = {.count = (size_t)(last - first + 1)};
	int rc = 0;

	if (s->form == FORM_PACKED) {
		autoptr(unpack) u = unpack_new(STR("zstd"), 16 << 20);
		rc = unpack_feed(u, buf_str(&s->packed[number]), &unpacked, &err);
		if (rc == 0)
			rc = log_batch_decode(buf_str(&unpacked), arena, &batch, &err);
	} else if (s->form == FORM_BODY) {
		rc = log_batch_decode(buf_str(&s->bodies[number]), arena, &batch, &err);
	} else {
		batch.lines = arena_calloc(arena, batch.count, sizeof(*batch.lines));
		for (int64_t seq = first; seq <= last; seq++)
			batch.lines[seq - first] = line_of(s, seq);
	}
	if (rc == 0)
		rc = log_store_append(s->store, 1, batch.lines, batch.count, &done, &err);
	if (rc < 0)
		die(&err);
}

static void *send_all(void *arg)
{
	struct sender *s = arg;
	int64_t count = lines_of_job(s->set);

	for (int64_t first = 1; first <= count; first += s->set->per_batch) {
		int64_t last = first + s->set->per_batch - 1;
		send_batch(s, first, last < count ? last : count);
	}
	return NULL;
}

static void prepare(struct sender *s, const struct settings *set, int64_t job_id)
{
	int64_t count = lines_of_job(set);
	int64_t batches = (count + set->per_batch - 1) / set->per_batch;

	*s = (struct sender){.set = set, .job_id = job_id};
	s->texts = xreallocarray(NULL, (size_t)count, BENCH_LINE_SIZE);
	s->bodies = xcalloc((size_t)batches, sizeof(*s->bodies));
	for (int64_t seq = 1; seq <= count; seq++) {
		bench_line(s->texts + (seq - 1) * BENCH_LINE_SIZE, job_id, seq);
		struct log_line line = line_of(s, seq);
		log_line_encode(&line, &s->bodies[(seq - 1) / set->per_batch]);
	}
	s->packed = xcalloc((size_t)batches, sizeof(*s->packed));
}

static int64_t cpu_ns(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NS_PER_S +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * NS_PER_US;
}

static void report(const char *name, int64_t lines, int64_t wall_ns, int64_t used_ns, const char *end)
{
	(void)printf("\"%s\": {\"lines_per_s\": %.0f, \"lines_per_cpu_s\": %.0f}%s", name,
		     (double)lines * 1e9 / (double)wall_ns, (double)lines * 1e9 / (double)used_ns, end);
}

static void run_store(const struct settings *set, struct sender *senders, const char *name, enum form form)
{
	autofree char *path = xasprintf("%s/%s", set->folder, name);
	const struct log_store_opts opts = {.path = path};
	struct log_store_recovery recovery;
	struct log_store *store = NULL;
	struct err err = {0};

	if (log_store_open(&opts, &store, &recovery, &err) < 0)
		die(&err);
	int64_t wall = clock_monotonic_ns();
	int64_t cpu = cpu_ns();
	for (int64_t i = 0; i < set->jobs; i++) {
		senders[i].store = store;
		senders[i].form = form;
		if (pthread_create(&senders[i].thread, NULL, send_all, &senders[i]) != 0)
			abort();
	}
	for (int64_t i = 0; i < set->jobs; i++)
		(void)pthread_join(senders[i].thread, NULL);
	report(name, lines_of_job(set) * set->jobs, clock_monotonic_ns() - wall, cpu_ns() - cpu, ", ");
	if (log_store_close(store, &err) < 0)
		die(&err);
}

static void run_packing(const struct settings *set, struct sender *senders)
{
	int64_t batches = (lines_of_job(set) + set->per_batch - 1) / set->per_batch;
	autoptr(zstd) z = zstd_new(1);
	int64_t wall = clock_monotonic_ns();
	int64_t cpu = cpu_ns();

	for (int64_t i = 0; i < set->jobs; i++) {
		for (int64_t batch = 0; batch < batches; batch++)
			(void)zstd_pack(z, buf_str(&senders[i].bodies[batch]), &senders[i].packed[batch]);
	}
	report("packing", lines_of_job(set) * set->jobs, clock_monotonic_ns() - wall, cpu_ns() - cpu, ", ");
}

static void run_floor(const struct settings *set, const struct sender *senders)
{
	autofree char *path = xasprintf("%s/floor", set->folder);
	autoclose fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int64_t count = lines_of_job(set);
	size_t batch = (size_t)set->per_batch * BENCH_LINE_SIZE;
	autofree char *packed = xmalloc(ZSTD_compressBound(batch));
	ZSTD_CCtx *zstd = xcheck(ZSTD_createCCtx());
	struct err err = {0};

	if (fd < 0) {
		(void)err_sys(&err, "create %s", path);
		die(&err);
	}
	int64_t wall = clock_monotonic_ns();
	int64_t cpu = cpu_ns();
	for (int64_t first = 0; first < count; first += set->per_batch) {
		for (int64_t i = 0; i < set->jobs; i++) {
			int64_t lines = count - first < set->per_batch ? count - first : set->per_batch;
			size_t len = ZSTD_compressCCtx(zstd, packed, ZSTD_compressBound(batch),
						       senders[i].texts + first * BENCH_LINE_SIZE,
						       (size_t)lines * BENCH_LINE_SIZE, 1);
			if (ZSTD_isError(len))
				abort();
			if (file_write_fd(fd, (struct str){packed, len}, &err) < 0)
				die(&err);
			if (fdatasync(fd) != 0)
				abort();
		}
	}
	report("floor", count * set->jobs, clock_monotonic_ns() - wall, cpu_ns() - cpu, "");
	(void)ZSTD_freeCCtx(zstd);
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
	char temporary[] = "/var/tmp/nimbus-bench-XXXXXX";
	const char *folder = mkdtemp(temporary);
	struct err err = {0};

	if (argc > 1) {
		(void)rmdir(temporary);
		folder = argv[1];
	}
	if (folder == NULL || dir_make(folder, 0700, &err) < 0)
		die(&err);
	const struct settings set = {
		.folder = folder,
		.lines = number(argc, argv, 2, 2000000),
		.jobs = number(argc, argv, 3, 16),
		.per_batch = number(argc, argv, 4, 2000),
	};
	struct sender *senders = xcalloc((size_t)set.jobs, sizeof(*senders));
	for (int64_t i = 0; i < set.jobs; i++)
		prepare(&senders[i], &set, i + 1);
	(void)printf("{\"lines\": %" PRId64 ", \"jobs\": %" PRId64 ", \"lines_per_batch\": %" PRId64 ", ", set.lines,
		     set.jobs, set.per_batch);
	run_store(&set, senders, "store", FORM_LINES);
	run_store(&set, senders, "body", FORM_BODY);
	run_packing(&set, senders);
	run_store(&set, senders, "packed", FORM_PACKED);
	run_floor(&set, senders);
	(void)puts("}");
	if (argc <= 1)
		(void)!dir_remove(AT_FDCWD, folder, &err);
	return 0;
}
