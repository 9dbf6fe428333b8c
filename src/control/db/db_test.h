/*
 * For tests only: a control plane's database, on SQLite or PostgreSQL (store/sql_test.h), with a clock that stands
 * still until it is moved, and a record of what it told.
 */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* cmocka.h wants the headers above. */
#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "control/db/db.h"
#include "control/db/jobs_db.h"
#include "control/db/leases_db.h"
#include "control/db/seals_db.h"
#include "store/migrate.h"
#include "store/sql_test.h"

enum { TOLD_MAX = 64 };

struct fixture {
	char folder[64];
	struct control_db db;
	struct sealer *sealer;
	int64_t now;
	struct arena *arena;
	struct err err;
	size_t told_count;
	struct {
		enum job_event_type type;
		int64_t job_id;
		enum job_state from, to;
	} told[TOLD_MAX];
};

unused_fn static int64_t fixture_now(void *ctx)
{
	const struct fixture *f = ctx;

	return __atomic_load_n(&f->now, __ATOMIC_SEQ_CST); /* read by the writer's thread */
}

unused_fn static void fixture_told(void *ctx, const struct job_event *event)
{
	struct fixture *f = ctx;

	if (f->told_count == TOLD_MAX)
		return;
	f->told[f->told_count].type = event->type;
	f->told[f->told_count].job_id = event->job_id;
	f->told[f->told_count].from = event->from;
	f->told[f->told_count++].to = event->to;
}

unused_fn static int fixture_setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	autofree char *dsn = NULL;

	(void)snprintf(f->folder, sizeof(f->folder), "/tmp/nimbus-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	f->now = 1000 * NS_PER_S;
	f->arena = arena_new();
	f->db = (struct control_db){.plane = "test", .now = fixture_now, .on_event = fixture_told, .ctx = f};
	dsn = test_database(f->folder);
	must(sql_open(&(struct sql_opts){.dsn = dsn}, &f->db.sql, &f->err));
	must(sql_migrate(f->db.sql, "control", &f->err));
	must(sealer_new(f->folder, &f->sealer, &f->err));
	f->db.sealer = f->sealer;
	*state = f;
	return 0;
}

unused_fn static int fixture_teardown(void **state)
{
	struct fixture *f = *state;

	sql_free(f->db.sql);
	sealer_free(f->sealer);
	arena_free(f->arena);
	must(dir_remove(AT_FDCWD, f->folder, &f->err));
	free(f);
	return 0;
}

unused_fn static void pass_time(struct fixture *f, int64_t ns)
{
	(void)__atomic_add_fetch(&f->now, ns, __ATOMIC_SEQ_CST);
}

unused_fn static struct label_set fixture_labels(struct fixture *f, const char *key)
{
	struct label_set set = {0};

	must(label_set_from_key(str_c(key), f->arena, &set, &f->err));
	return set;
}

/* A small job that asks for these labels. */
unused_fn static struct job_spec fixture_spec(struct fixture *f, const char *labels)
{
	static const char *argv[] = {"true"};

	return (struct job_spec){
		.org_id = 1,
		.image = "demo",
		.argv = {.items = argv, .count = 1},
		.labels = fixture_labels(f, labels),
		.vcpus = 1,
		.memory_mb = 256,
		.disk_mb = 64,
		.timeout_s = 60,
		.max_attempts = 3,
	};
}

unused_fn static int64_t fixture_submit(struct fixture *f, const char *labels)
{
	struct job_spec spec = fixture_spec(f, labels);
	struct job job = {0};

	must(jobs_db_submit(&f->db, &spec, f->arena, &job, &f->err));
	return job.id;
}

/* Leases by an agent that offers the labels; gives what leases_db_lease() gave. */
unused_fn static int fixture_lease(struct fixture *f, const char *agent, const char *labels, bool provisional,
				   struct job *ret)
{
	struct label_set set = fixture_labels(f, labels);

	return leases_db_lease(
		&f->db,
		&(struct lease_offer){
			.agent_id = agent, .labels = &set, .provisional = provisional, .ttl_ns = 300 * NS_PER_S},
		f->arena, ret, &f->err);
}

unused_fn static struct job fixture_get(struct fixture *f, int64_t id)
{
	struct job job = {0};

	must(jobs_db_get(&f->db, id, f->arena, &job, &f->err));
	return job;
}

struct number {
	const char *text;
	int64_t value;
};

unused_fn static int fixture_number_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct number *n = ctx;
	int rc = sql_get_i64(tx, n->text, SQL_NO_ARGS, &n->value, err);

	return rc < 0 ? rc : 0;
}

/* What a SELECT of one number says. */
unused_fn static int64_t fixture_number(struct fixture *f, const char *text)
{
	struct number n = {.text = text};

	must(sql_read(f->db.sql, fixture_number_fn, &n, &f->err));
	return n.value;
}

unused_fn static int fixture_run_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	return sql_exec(tx, ctx, SQL_NO_ARGS, NULL, err);
}

/* One statement without parameters. */
unused_fn static void fixture_run(struct fixture *f, const char *text)
{
	autofree char *own = xstrdup(text);

	must(sql_write(f->db.sql, fixture_run_fn, own, &f->err));
}
