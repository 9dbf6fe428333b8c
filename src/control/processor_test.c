/* Deliveries in numbers, and what befalls those that cannot be written. */
#include <inttypes.h>

#include "base/log.h"
#include "control/control_metrics.h"
#include "control/db/db_test.h"
#include "control/db/deliveries_db.h"
#include "control/handlers.h"

struct world {
	struct fixture *f;
	struct control_settings settings;
	struct app app;
	int64_t accepted;
};

static int set_up(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	void *own = NULL;

	log_set_level(LOG_LEVEL_ERROR);
	assert_int_equal(fixture_setup(&own), 0);
	w->f = own;
	w->settings = (struct control_settings){.github_dry_run = true, .max_attempts = 3};
	w->app = (struct app){.settings = &w->settings,
			      .outage = outage_new(),
			      .db = w->f->db,
			      .metrics = metrics_new(control_metrics, CONTROL_METRIC_COUNT)};
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	void *own = w->f;

	metrics_free(w->app.metrics);
	outage_free(w->app.outage);
	assert_int_equal(fixture_teardown(&own), 0);
	free(w);
	return 0;
}

/* --- what came in --- */

struct incoming {
	struct world *w;
	int64_t jobs;
};

static int accept_one(struct sql_tx *tx, struct world *w, const char *event, const char *body, struct err *err)
{
	autofree char *id = xasprintf("d-%" PRId64, ++w->accepted);

	return sql_exec(tx,
			"INSERT INTO delivery (id, event, body, received_at, state, tries, next_at)"
			" VALUES ($1, $2, $3, $4, 'new', 0, $5)",
			SQL_ARGS(sql_text(id), sql_text(event), sql_blob(str_c(body)), sql_i64(w->accepted),
				 sql_i64(w->f->now)),
			NULL, err);
}

static int accept_job(struct sql_tx *tx, struct world *w, int64_t job, const char *action, struct err *err)
{
	autofree char *body = xasprintf("{\"action\":\"%s\",\"workflow_job\":{\"id\":%" PRId64
					",\"run_id\":5,\"labels\":[\"nimbus\"],\"conclusion\":\"success\"},"
					"\"repository\":{\"id\":42,\"owner\":{\"id\":7}}}",
					action, job);

	return accept_one(tx, w, "workflow_job", body, err);
}

/* Job after job goes through all of its states, and a ping is among them for each. */
static int accept_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct incoming *in = ctx;
	static const char *const actions[] = {"queued", "in_progress", "completed"};
	int rc = 0;

	in->w->accepted = 0;
	for (size_t a = 0; a < ARRAY_LEN(actions); a++)
		for (int64_t job = 1; job <= in->jobs && rc == 0; job++)
			rc = accept_job(tx, in->w, job, actions[a], err);
	for (int64_t i = 0; i < in->jobs && rc == 0; i++)
		rc = accept_one(tx, in->w, "ping", "{}", err);
	return rc;
}

static void accept_all(struct world *w, int64_t jobs)
{
	struct fixture *f = w->f;
	struct incoming in = {.w = w, .jobs = jobs};

	must(sql_write(f->db.sql, accept_fn, &in, &f->err));
}

static size_t passes_until_idle(struct world *w)
{
	size_t passes = 1;

	while (processing_pass(&w->app) == 0)
		passes++;
	return passes;
}

static struct deliveries_counts counts_of(struct world *w)
{
	struct fixture *f = w->f;
	struct deliveries_counts counts = {0};

	must(deliveries_db_counts(&f->db, &counts, &f->err));
	return counts;
}

/* --- tests --- */

static void thousands_of_deliveries_share_commits_and_keep_their_order(void **state)
{
	struct world *w = *state;
	struct fixture *f = w->f;
	enum { JOBS = 1250 };

	accept_all(w, JOBS);
	/* Batches are full while there is enough to do: a little above accepted / 16. */
	assert_true((int64_t)passes_until_idle(w) < w->accepted / 15);
	struct deliveries_counts counts = counts_of(w);
	assert_int_equal(counts.waiting + counts.failed, 0);
	assert_int_equal(counts.jobs, 3 * JOBS);
	assert_int_equal(counts.refused, JOBS);
	assert_int_equal((int64_t)metrics_get(w->app.metrics, M_WEBHOOKS_REFUSED), JOBS);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM delivery WHERE body IS NOT NULL"), 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job WHERE state = 'succeeded'"), JOBS);
	/* One that overtook another would have left out a step. */
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job_history"), 3 * JOBS);
}

static void one_that_cannot_be_written_holds_up_no_other(void **state)
{
	struct world *w = *state;
	struct fixture *f = w->f;
	enum { JOBS = 50 };

	accept_all(w, JOBS);
	fixture_run(f, "CREATE TRIGGER broken BEFORE INSERT ON job WHEN NEW.github_job_id = 17 AND NEW.state = 'queued'"
		       " BEGIN SELECT RAISE(ABORT, 'broken'); END");
	(void)passes_until_idle(w);
	struct deliveries_counts counts = counts_of(w);
	assert_int_equal(counts.waiting, 1);
	assert_int_equal(counts.jobs, 3 * JOBS - 1);
	assert_int_equal(counts.refused, JOBS);
	assert_int_equal(fixture_number(f, "SELECT tries FROM delivery WHERE state = 'new'"), 1);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job WHERE state = 'succeeded'"), JOBS);

	fixture_run(f, "DROP TRIGGER broken");
	pass_time(f, 2 * NS_PER_S);
	(void)passes_until_idle(w);
	counts = counts_of(w);
	assert_int_equal(counts.waiting, 0);
	assert_int_equal(counts.jobs, 3 * JOBS); /* old news by now, and said so of the same job */
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job"), JOBS);
}

static void nothing_is_lost_while_the_database_takes_nothing(void **state)
{
	struct world *w = *state;
	struct fixture *f = w->f;
	enum { JOBS = 5 };

	accept_all(w, JOBS);
	fixture_run(f, "CREATE TRIGGER broken BEFORE UPDATE ON delivery BEGIN SELECT RAISE(ABORT, 'broken'); END");
	assert_int_equal(passes_until_idle(w), 1);
	assert_int_equal(counts_of(w).waiting, 4 * JOBS);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job"), 0);
	assert_int_equal(f->told_count, 0);
	fixture_run(f, "DROP TRIGGER broken");
	(void)passes_until_idle(w);
	assert_int_equal(counts_of(w).waiting, 0);
	assert_int_equal(fixture_number(f, "SELECT COUNT(*) FROM job"), JOBS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(thousands_of_deliveries_share_commits_and_keep_their_order),
		TEST(one_that_cannot_be_written_holds_up_no_other),
		TEST(nothing_is_lost_while_the_database_takes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
