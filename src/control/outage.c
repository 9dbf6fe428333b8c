#include "control/outage.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define REMIND_NS (30 * NS_PER_S)

struct outage {
	pthread_mutex_t lock; /* guards all below */
	int64_t since_ns;     /* 0: it answers */
	int64_t said_ns;
};

struct outage *outage_new(void)
{
	struct outage *o = xcalloc(1, sizeof(*o));

	pthread_mutex_init(&o->lock, NULL);
	return o;
}

void outage_free(struct outage *o)
{
	if (o == NULL)
		return;
	pthread_mutex_destroy(&o->lock);
	free(o);
}

static void note_away_locked(struct outage *o, const struct err *err)
{
	int64_t now_ns = clock_monotonic_ns();

	if (o->since_ns == 0)
		o->since_ns = now_ns;
	else if (now_ns - o->said_ns < REMIND_NS)
		return;
	o->said_ns = now_ns;
	log_error("the database does not answer: requests get 503, running jobs go on", F("error", err),
		  F("seconds", (now_ns - o->since_ns) / NS_PER_S));
}

static void note_back_locked(struct outage *o)
{
	if (o->since_ns == 0)
		return;
	log_info("the database answers again", F("seconds", (clock_monotonic_ns() - o->since_ns) / NS_PER_S));
	o->since_ns = 0;
}

void outage_note(struct outage *o, int rc, const struct err *err, const char *what)
{
	if (rc < 0 && rc != -ERR_UNAVAILABLE) {
		log_error("the database failed", F("waits", what), F("error", err));
		return;
	}
	pthread_mutex_lock(&o->lock);
	if (rc < 0)
		note_away_locked(o, err);
	else
		note_back_locked(o);
	pthread_mutex_unlock(&o->lock);
}

int64_t outage_lasts_ns(struct outage *o)
{
	pthread_mutex_lock(&o->lock);
	int64_t since_ns = o->since_ns;
	pthread_mutex_unlock(&o->lock);
	return since_ns == 0 ? 0 : clock_monotonic_ns() - since_ns;
}
