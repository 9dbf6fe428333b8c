/*
 * Ends leases whose time is over, so that their jobs run again.
 */
#include "base/clock.h"
#include "base/log.h"
#include "control/control_metrics.h"
#include "control/db/leases_db.h"
#include "control/handlers.h"

#define PERIOD_NS (250 * NS_PER_MS)

int64_t expirer_pass(void *ctx)
{
	struct app *app = ctx;
	struct err err = {0};
	int64_t count = 0;

	if (leases_db_expire(&app->db, &count, &err) < 0)
		log_error("leases that are over stay: the database does not answer", F("error", &err));
	else if (count > 0)
		metrics_add(app->metrics, M_LEASES_EXPIRED, (uint64_t)count);
	return PERIOD_NS;
}
