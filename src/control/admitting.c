/*
 * Lets in jobs that their organisation's rate held back, as soon as there is room. Which ones, the database says, so a
 * restart or another control plane changes nothing.
 */
#include "base/clock.h"
#include "base/log.h"
#include "control/db/admission.h"
#include "control/handlers.h"

#define PERIOD_NS (250 * NS_PER_MS)

int64_t admitting_pass(void *ctx)
{
	struct app *app = ctx;
	struct err err = {0};
	int64_t count = 0;

	outage_note(app->outage, admission_let_in(&app->db, &count, &err), &err, "held jobs");
	return count > 0 ? 0 : PERIOD_NS;
}
