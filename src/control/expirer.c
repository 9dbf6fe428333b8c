/*
 * Ends what has had its time: leases, so that their jobs run again; files of jobs that have ended; now and then nonces
 * and rates that say nothing more.
 */
#include "base/clock.h"
#include "base/log.h"
#include "control/control_metrics.h"
#include "control/db/deliveries_db.h"
#include "control/db/leases_db.h"
#include "control/db/rate_limit.h"
#include "control/handlers.h"

#define PERIOD_NS (250 * NS_PER_MS)
#define SWEEP_EVERY_NS (30 * NS_PER_S)
#define FILES_EVERY_NS (20 * NS_PER_S)
#define FILES_LIMIT_NS (1 * NS_PER_S) /* leases wait so long for the files of a pass */

static void sweep(struct app *app)
{
	struct err err = {0};
	int64_t nonces = 0;
	int64_t rates = 0;
	int r = deliveries_db_forget_nonces(&app->db, &nonces, &err);

	if (r == 0)
		r = rate_limit_prune(&app->db, &rates, &err);
	outage_note(app->outage, r, &err, "old nonces and rates");
	if (r == 0)
		atomic_store(&app->nonces, nonces);
}

static void sweep_files(struct app *app)
{
	struct err err = {0};
	int r = files_sweep_ended(app, &err);

	if (r == 0 && clock_monotonic_ns() >= app->files_due_ns) {
		r = files_sweep(app, FILES_LIMIT_NS, &err);
		app->files_due_ns = clock_monotonic_ns() + (r == FILES_SWEEP_SOON ? 0 : FILES_EVERY_NS);
	}
	outage_note(app->outage, r < 0 ? r : 0, &err, "old files of jobs");
}

int64_t expirer_pass(void *ctx)
{
	struct app *app = ctx;
	struct err err = {0};
	int64_t count = 0;

	int r = leases_db_expire(&app->db, &count, &err);

	outage_note(app->outage, r, &err, "leases that are over");
	if (count > 0)
		metrics_add(app->metrics, M_LEASES_EXPIRED, (uint64_t)count);
	if (r == 0 && clock_monotonic_ns() >= app->sweep_due_ns) {
		sweep(app);
		app->sweep_due_ns = clock_monotonic_ns() + SWEEP_EVERY_NS;
	}
	if (r == 0)
		sweep_files(app);
	return PERIOD_NS;
}
