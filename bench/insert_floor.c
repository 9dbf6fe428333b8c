/*
 * The floor under accepting webhooks: the same rows by bare INSERTs into the same table, with the same durability (WAL,
 * synchronous=FULL).
 *
 *	insert_floor FOLDER SCHEMA PAYLOAD ROWS RATE
 *
 * "single": a commit per row, one after the other. "grouped": 64 rows a commit. "paced": rows due at RATE, every commit
 * takes all that are due, as a group commit does; latency from when a row was due. One object of JSON on standard
 * output. No phase takes longer than 5 s, so on a slow disk it has fewer rows.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <sqlite3.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

enum { GROUP = 64, PHASE_S = 5 };

struct floor {
	sqlite3 *db;
	sqlite3_stmt *insert;
	struct buf payload;
	int64_t rows;
	int64_t next_id;
	double *latencies_ms;
};

static noreturn_fn void die(const char *what)
{
	(void)fprintf(stderr, "insert_floor: %s\n", what);
	exit(1);
}

static void script(struct floor *f, const char *sql)
{
	char *message = NULL;

	if (sqlite3_exec(f->db, sql, NULL, NULL, &message) != SQLITE_OK)
		die(message != NULL ? message : "sqlite");
}

static void open_database(struct floor *f, const char *folder, const char *schema)
{
	autovar(buf) sql = {0};
	autofree char *path = xasprintf("%s/floor.db", folder);
	struct err err = {0};

	if (file_read(AT_FDCWD, schema, 1 << 20, &sql, &err) < 0)
		die(err.msg);
	if (sqlite3_open(path, &f->db) != SQLITE_OK)
		die("open the database");
	script(f, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
	script(f, sql.data);
	if (sqlite3_prepare_v2(f->db,
			       "INSERT INTO delivery (id, event, body, received_at, state, tries, next_at)"
			       " VALUES (?1, 'workflow_job', ?2, ?3, 'new', 0, ?3)",
			       -1, &f->insert, NULL) != SQLITE_OK)
		die(sqlite3_errmsg(f->db));
}

static void insert(struct floor *f)
{
	char id[32];

	(void)snprintf(id, sizeof(id), "bench-%016" PRId64, f->next_id++);
	(void)sqlite3_bind_text(f->insert, 1, id, -1, SQLITE_TRANSIENT);
	(void)sqlite3_bind_blob(f->insert, 2, f->payload.data, (int)f->payload.len, SQLITE_STATIC);
	(void)sqlite3_bind_int64(f->insert, 3, clock_unix_ns());
	if (sqlite3_step(f->insert) != SQLITE_DONE)
		die(sqlite3_errmsg(f->db));
	(void)sqlite3_reset(f->insert);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(struct floor *f, const char *name, int64_t begun_ns, int64_t rows)
{
	double seconds = (double)(clock_monotonic_ns() - begun_ns) / (double)NS_PER_S;
	size_t n = (size_t)rows;

	qsort(f->latencies_ms, n, sizeof(double), compare);
	(void)printf("\"%s\": {\"rows\": %" PRId64 ", \"per_second\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}", name,
		     rows, (double)n / seconds, f->latencies_ms[n / 2], f->latencies_ms[n * 99 / 100]);
}

static void closed_loop(struct floor *f, const char *name, int64_t group)
{
	int64_t begun_ns = clock_monotonic_ns();
	int64_t done = 0;

	while (done < f->rows && clock_monotonic_ns() - begun_ns < PHASE_S * NS_PER_S) {
		int64_t from_ns = clock_monotonic_ns();
		int64_t first = done;
		script(f, "BEGIN IMMEDIATE");
		for (; done < f->rows && done - first < group; done++)
			insert(f);
		script(f, "COMMIT");
		for (int64_t i = first; i < done; i++)
			f->latencies_ms[i] = (double)(clock_monotonic_ns() - from_ns) / (double)NS_PER_MS;
	}
	report(f, name, begun_ns, done);
}

static void sleep_until(int64_t due_ns)
{
	struct timespec at = {.tv_sec = due_ns / NS_PER_S, .tv_nsec = due_ns % NS_PER_S};

	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void paced(struct floor *f, int64_t rate)
{
	int64_t begun_ns = clock_monotonic_ns();
	int64_t done = 0;

	while (done < f->rows && clock_monotonic_ns() - begun_ns < PHASE_S * NS_PER_S) {
		int64_t first = done;
		sleep_until(begun_ns + done * NS_PER_S / rate);
		script(f, "BEGIN IMMEDIATE");
		for (; done < f->rows && begun_ns + done * NS_PER_S / rate <= clock_monotonic_ns(); done++)
			insert(f);
		script(f, "COMMIT");
		for (int64_t i = first; i < done; i++) {
			int64_t due_ns = begun_ns + i * NS_PER_S / rate;
			f->latencies_ms[i] = (double)(clock_monotonic_ns() - due_ns) / (double)NS_PER_MS;
		}
	}
	report(f, "paced", begun_ns, done);
}

static int64_t number(const char *text)
{
	struct err err = {0};
	int64_t value = 0;

	if (str_to_i64(str_c(text), "argument", 1, INT64_MAX, &value, &err) < 0)
		die(err.msg);
	return value;
}

int main(int argc, char **argv)
{
	struct floor f = {0};
	struct err err = {0};

	if (argc != 6) {
		(void)fprintf(stderr, "usage: insert_floor FOLDER SCHEMA PAYLOAD ROWS RATE\n");
		return 2;
	}
	f.rows = number(argv[4]);
	f.latencies_ms = xcalloc((size_t)f.rows, sizeof(double));
	if (file_read(AT_FDCWD, argv[3], 1 << 20, &f.payload, &err) < 0)
		die(err.msg);
	open_database(&f, argv[1], argv[2]);
	(void)printf("{");
	closed_loop(&f, "single", 1);
	(void)printf(", ");
	closed_loop(&f, "grouped", GROUP);
	(void)printf(", ");
	paced(&f, number(argv[5]));
	(void)puts("}");
	(void)sqlite3_finalize(f.insert);
	(void)sqlite3_close(f.db);
	free(f.latencies_ms);
	buf_fini(&f.payload);
	return 0;
}
