/*
 * Whether the database answers, as the background workers find it several times a second: said once when it stops and
 * once when it is back, not by every pass, and told to /healthz, which asks nobody.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct outage;

struct outage *outage_new(void) must_check;
void outage_free(struct outage *o);

/* What a call of the database gave, and its error if that is negative. `what` waits while it does not answer: a
 * constant. From any thread. */
void outage_note(struct outage *o, int rc, const struct err *err, const char *what);
/* How long it has not answered, in ns; 0: it does. */
int64_t outage_lasts_ns(struct outage *o);
