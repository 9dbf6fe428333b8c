#include "control/worker.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

struct worker {
	worker_pass_fn *pass;
	void *ctx;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* guards the two below */
	bool woken;
	bool stopping;
	pthread_cond_t changed;
};

struct worker *worker_new(worker_pass_fn *pass, void *ctx)
{
	struct worker *w = xcalloc(1, sizeof(*w));

	w->pass = pass;
	w->ctx = ctx;
	pthread_mutex_init(&w->lock, NULL);
	clock_cond_init(&w->changed);
	return w;
}

/* False: it is time to end. */
static bool wait_for_next(struct worker *w, int64_t pause_ns)
{
	int64_t deadline = clock_monotonic_ns() + pause_ns;
	bool go_on;

	pthread_mutex_lock(&w->lock);
	while (!w->woken && !w->stopping && pause_ns > 0)
		if (!clock_cond_wait(&w->changed, &w->lock, deadline))
			break;
	w->woken = false;
	go_on = !w->stopping;
	pthread_mutex_unlock(&w->lock);
	return go_on;
}

static void *run(void *arg)
{
	struct worker *w = arg;

	while (wait_for_next(w, w->pass(w->ctx)))
		continue;
	return NULL;
}

int worker_start(struct worker *w, struct err *err)
{
	int failed = pthread_create(&w->thread, NULL, run, w);

	if (failed != 0)
		return err_set(err, ERR_INTERNAL, "start a thread: error %d", failed);
	w->started = true;
	return 0;
}

void worker_wake(struct worker *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->woken = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void worker_stop(struct worker *w)
{
	if (!w->started)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	w->started = false;
}

void worker_free(struct worker *w)
{
	if (w == NULL)
		return;
	worker_stop(w);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
