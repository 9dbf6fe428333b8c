/*
 * PostgreSQL: what the store and the control plane make of it, beside the same by libpq alone, on the same server in
 *the same run.
 *
 *	pg_store DSN PAYLOAD [SECONDS [THREADS]]
 *
 * "take": a row of a queue is taken by FOR UPDATE SKIP LOCKED, one statement, one commit each: "bare" by libpq with a
 * prepared statement, "store" by sql_write(). "insert": a webhook's row, likewise. "lease": a job is leased, with its
 * move, history and lease: "control" is leases_db_lease(), "bare" the least that a transaction of prepared statements
 * can do to the same tables. Phases of one kind take turns, three times, and the median counts. One object of JSON on
 * standard output. The database is emptied.
 */
/* Before base/banned.h, for a macro of it uses what that bans. */
#include <libpq-fe.h>

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "control/db/jobs_db.h"
#include "control/db/leases_db.h"
#include "store/migrate.h"
#include "store/sql.h"

enum { THREADS_MAX = 32, ROUNDS = 3 };

#define TAKE_TEXT                                                                          \
	"DELETE FROM bench_queue WHERE id = (SELECT id FROM bench_queue ORDER BY position" \
	" LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"
#define INSERT_TEXT                                                                  \
	"INSERT INTO delivery (id, event, body, received_at, state, tries, next_at)" \
	" VALUES ($1, 'workflow_job', $2, $3, 'new', 0, $3)"

struct bench {
	const char *dsn;
	struct sql *sql;
	struct control_db db;
	struct buf payload;
	int64_t seconds;
	int64_t threads;
	atomic_int_fast64_t next_id;
};

struct worker {
	struct bench *b;
	const struct phase *phase;
	int64_t number;
	int64_t until_ns;
	int64_t done;
	PGconn *conn;
	pthread_t thread;
};

struct phase {
	const char *kind, *name;
	void (*prepare)(struct bench *b);
	void (*once)(struct worker *w);
	double rates[ROUNDS];
};

static noreturn_fn void die(const char *what)
{
	(void)fprintf(stderr, "pg_store: %s\n", what);
	exit(1);
}

static void check(int rc, const struct err *err)
{
	if (rc < 0)
		die(err->msg);
}

static int script_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const char *const *text = ctx;

	return sql_exec(tx, *text, SQL_NO_ARGS, NULL, err);
}

static void script(struct bench *b, const char *text)
{
	struct err err = {0};

	check(sql_write(b->sql, script_fn, &text, &err), &err);
}

/* --- libpq alone --- */

static void must_be(PGconn *conn, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		die(PQerrorMessage(conn));
}

static void bare(PGconn *conn, const char *text)
{
	PGresult *result = PQexec(conn, text);

	must_be(conn, result);
	PQclear(result);
}

static PGconn *bare_open(const struct bench *b)
{
	PGconn *conn = PQconnectdb(b->dsn);

	if (PQstatus(conn) != CONNECTION_OK)
		die(PQerrorMessage(conn));
	bare(conn, "PREPARE take AS " TAKE_TEXT);
	bare(conn, "PREPARE deliver (text, bytea, bigint) AS " INSERT_TEXT);
	bare(conn, "PREPARE find (bigint) AS SELECT j.id, j.fence, j.moves FROM job j JOIN queue q ON q.job_id = j.id"
		   " WHERE q.label_set_id = $1 AND j.state = 'queued' ORDER BY q.position LIMIT 1"
		   " FOR UPDATE OF j SKIP LOCKED");
	bare(conn, "PREPARE move (bigint, bigint) AS UPDATE job SET state = 'leased', agent_id = 'bench',"
		   " fence = fence + 1, moves = moves + 1, leased_at = $2, updated_at = $2 WHERE id = $1");
	bare(conn, "PREPARE unqueue (bigint) AS DELETE FROM queue WHERE job_id = $1");
	bare(conn, "PREPARE history (bigint, bigint, bigint) AS INSERT INTO job_history (job_id, n, at, from_state,"
		   " to_state, attempt, fence, agent_id) VALUES ($1, $2, $3, 'queued', 'leased', 1, 1, 'bench')");
	bare(conn, "PREPARE lease (bigint, bigint) AS INSERT INTO lease (job_id, agent_id, fence, stage, granted_at,"
		   " expires_at) VALUES ($1, 'bench', 1, 1, $2, $2 + 300000000000)");
	return conn;
}

static PGresult *run(PGconn *conn, const char *name, int count, const char *const *values, const int *lengths,
		     const int *formats)
{
	PGresult *result = PQexecPrepared(conn, name, count, values, lengths, formats, 0);

	must_be(conn, result);
	return result;
}

/* --- take --- */

static void fill_queue(struct bench *b)
{
	script(b, "DROP TABLE IF EXISTS bench_queue");
	script(b, "CREATE TABLE bench_queue (id BIGINT PRIMARY KEY, position BIGINT NOT NULL)");
	script(b, "INSERT INTO bench_queue SELECT n, n FROM generate_series(1, 200000) n");
	script(b, "CREATE INDEX bench_queue_by_position ON bench_queue (position)");
	script(b, "ANALYZE bench_queue");
}

static void take_bare(struct worker *w)
{
	PGresult *result = run(w->conn, "take", 0, NULL, NULL, NULL);

	if (PQntuples(result) != 1)
		die("the queue is empty");
	PQclear(result);
}

static int take_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	return sql_get_i64(tx, TAKE_TEXT, SQL_NO_ARGS, ctx, err);
}

static void take_store(struct worker *w)
{
	struct err err = {0};
	int64_t id = 0;
	int rc = sql_write(w->b->sql, take_fn, &id, &err);

	check(rc, &err);
	if (rc != 1)
		die("the queue is empty");
}

/* --- insert --- */

static void empty_deliveries(struct bench *b)
{
	script(b, "TRUNCATE delivery");
}

static void insert_bare(struct worker *w)
{
	char id[40];
	char now[24];

	(void)snprintf(id, sizeof(id), "bench-%016" PRId64, (int64_t)atomic_fetch_add(&w->b->next_id, 1));
	(void)snprintf(now, sizeof(now), "%" PRId64, clock_unix_ns());
	PQclear(run(w->conn, "deliver", 3, (const char *const[]){id, w->b->payload.data, now},
		    (const int[]){0, (int)w->b->payload.len, 0}, (const int[]){0, 1, 0}));
}

static int insert_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct worker *w = ctx;
	char id[40];

	(void)snprintf(id, sizeof(id), "bench-%016" PRId64, (int64_t)atomic_fetch_add(&w->b->next_id, 1));
	return sql_exec(tx, INSERT_TEXT,
			SQL_ARGS(sql_text(id), sql_blob(buf_str(&w->b->payload)), sql_i64(clock_unix_ns())), NULL, err);
}

static void insert_store(struct worker *w)
{
	struct err err = {0};

	check(sql_write(w->b->sql, insert_fn, w, &err), &err);
}

/* --- lease --- */

/* Copies of one job, so that there are many at once. */
static void fill_jobs(struct bench *b)
{
	autoptr(arena) arena = arena_new();
	static const char *argv[] = {"true"};
	struct err err = {0};
	struct job job = {0};
	struct job_spec spec = {.org_id = 1,
				.image = "demo",
				.argv = {.items = argv, .count = 1},
				.vcpus = 1,
				.memory_mb = 256,
				.disk_mb = 64,
				.timeout_s = 60,
				.max_attempts = 3};

	script(b, "TRUNCATE job, job_history, queue, lease");
	check(label_set_from_key(STR("bench"), arena, &spec.labels, &err), &err);
	check(jobs_db_submit(&b->db, &spec, arena, &job, &err), &err);
	script(b,
	       "DO $$ DECLARE columns text; BEGIN"
	       " SELECT string_agg(CASE column_name WHEN 'id' THEN 'j.id + n' ELSE 'j.' || column_name END, ','"
	       " ORDER BY ordinal_position) INTO columns FROM information_schema.columns WHERE table_name = 'job'"
	       " AND table_schema = 'public';"
	       " EXECUTE 'INSERT INTO job SELECT ' || columns || ' FROM job j, generate_series(1, 60000) n'; END $$");
	script(b, "INSERT INTO queue SELECT q.job_id + n, label_set_id, position + n, vcpus, memory_mb, queued_at"
		  " FROM queue q, generate_series(1, 60000) n");
	script(b, "ANALYZE job");
	script(b, "ANALYZE queue");
}

static void lease_bare(struct worker *w)
{
	char id[24];
	char now[24];

	bare(w->conn, "BEGIN");
	PGresult *found = run(w->conn, "find", 1, (const char *const[]){"1"}, NULL, NULL);
	if (PQntuples(found) != 1)
		die("no job is left");
	(void)snprintf(id, sizeof(id), "%s", PQgetvalue(found, 0, 0));
	PQclear(found);
	(void)snprintf(now, sizeof(now), "%" PRId64, clock_unix_ns());
	PQclear(run(w->conn, "move", 2, (const char *const[]){id, now}, NULL, NULL));
	PQclear(run(w->conn, "unqueue", 1, (const char *const[]){id}, NULL, NULL));
	PQclear(run(w->conn, "history", 3, (const char *const[]){id, "2", now}, NULL, NULL));
	PQclear(run(w->conn, "lease", 2, (const char *const[]){id, now}, NULL, NULL));
	bare(w->conn, "COMMIT");
}

static void lease_control(struct worker *w)
{
	autoptr(arena) arena = arena_new();
	struct err err = {0};
	struct job job = {0};
	struct label_set labels = {0};

	check(label_set_from_key(STR("bench"), arena, &labels, &err), &err);
	const struct lease_offer offer = {.agent_id = "bench", .labels = &labels, .ttl_ns = 300 * NS_PER_S};
	int rc = leases_db_lease(&w->b->db, &offer, arena, &job, &err);
	check(rc, &err);
	if (rc != 0)
		die("no job is left");
}

/* --- running --- */

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	w->conn = bare_open(w->b);
	while (clock_monotonic_ns() < w->until_ns) {
		w->phase->once(w);
		w->done++;
	}
	PQfinish(w->conn);
	return NULL;
}

static double measure(struct bench *b, const struct phase *phase)
{
	struct worker workers[THREADS_MAX];
	int64_t done = 0;

	phase->prepare(b);
	int64_t begun_ns = clock_monotonic_ns();
	for (int64_t i = 0; i < b->threads; i++) {
		workers[i] = (struct worker){
			.b = b, .phase = phase, .number = i, .until_ns = begun_ns + b->seconds * NS_PER_S};
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0)
			die("no thread");
	}
	for (int64_t i = 0; i < b->threads; i++) {
		(void)pthread_join(workers[i].thread, NULL);
		done += workers[i].done;
	}
	return (double)done * (double)NS_PER_S / (double)(clock_monotonic_ns() - begun_ns);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct phase phases[] = {
	{.kind = "take", .name = "bare", .prepare = fill_queue, .once = take_bare},
	{.kind = "take", .name = "store", .prepare = fill_queue, .once = take_store},
	{.kind = "insert", .name = "bare", .prepare = empty_deliveries, .once = insert_bare},
	{.kind = "insert", .name = "store", .prepare = empty_deliveries, .once = insert_store},
	{.kind = "lease", .name = "bare", .prepare = fill_jobs, .once = lease_bare},
	{.kind = "lease", .name = "control", .prepare = fill_jobs, .once = lease_control},
};

static void open_all(struct bench *b)
{
	struct err err = {0};

	check(sql_open(&(struct sql_opts){.dsn = b->dsn, .connections = (unsigned)b->threads}, &b->sql, &err), &err);
	script(b, "DROP SCHEMA public CASCADE");
	script(b, "CREATE SCHEMA public");
	check(sql_migrate(b->sql, "control", &err), &err);
	b->db = (struct control_db){.sql = b->sql, .plane = "bench"};
}

int main(int argc, char **argv)
{
	static struct bench b = {.seconds = 2, .threads = 8};
	struct err err = {0};

	if (argc < 3)
		die("usage: pg_store DSN PAYLOAD [SECONDS [THREADS]]");
	b.dsn = argv[1];
	check(file_read(AT_FDCWD, argv[2], 1 << 20, &b.payload, &err), &err);
	if (argc > 3)
		check(str_to_i64(str_c(argv[3]), "SECONDS", 1, 60, &b.seconds, &err), &err);
	if (argc > 4)
		check(str_to_i64(str_c(argv[4]), "THREADS", 1, THREADS_MAX, &b.threads, &err), &err);
	open_all(&b);
	for (size_t round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < ARRAY_LEN(phases); i++)
			phases[i].rates[round] = measure(&b, &phases[i]);
	}
	(void)printf("{\"threads\": %" PRId64, b.threads);
	for (size_t i = 0; i < ARRAY_LEN(phases); i++) {
		qsort(phases[i].rates, ROUNDS, sizeof(double), compare);
		(void)printf(", \"%s_%s\": %.1f", phases[i].kind, phases[i].name, phases[i].rates[ROUNDS / 2]);
	}
	(void)puts("}");
	sql_free(b.sql);
	buf_fini(&b.payload);
	return 0;
}
