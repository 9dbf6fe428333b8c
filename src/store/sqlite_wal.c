#include "store/sqlite_wal.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"

enum {
	SOFT_PAGES = 1000,  /* begin a checkpoint; 4 MB, SQLite's own default */
	HARD_PAGES = 16000, /* the writer waits for one: about 64 MB */
};

struct sqlite_wal {
	struct sqlite_client *client;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t wake;  /* wanted or stop */
	pthread_cond_t done;  /* passes went up */
	bool wanted;
	bool stop;
	uint64_t passes;
};

static void *checkpoint_main(void *arg)
{
	struct sqlite_wal *w = arg;

	(void)pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		if (!w->wanted) {
			(void)pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		w->wanted = false;
		(void)pthread_mutex_unlock(&w->lock);
		sqlite_client_checkpoint(w->client);
		(void)pthread_mutex_lock(&w->lock);
		w->passes++;
		(void)pthread_cond_broadcast(&w->done);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return NULL;
}

int sqlite_wal_new(struct sqlite_file *file, struct sqlite_wal **ret, struct err *err)
{
	autoptr(sqlite_wal) w = xcalloc(1, sizeof(*w));

	(void)pthread_mutex_init(&w->lock, NULL);
	clock_cond_init(&w->wake);
	clock_cond_init(&w->done);
	int rc = sqlite_client_open(file, "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0", &w->client, err);
	if (rc < 0)
		return rc;
	errno = pthread_create(&w->thread, NULL, checkpoint_main, w);
	if (errno != 0)
		return err_sys(err, "start a thread");
	w->started = true;
	*ret = TAKE(w);
	return 0;
}

void sqlite_wal_free(struct sqlite_wal *w)
{
	if (w == NULL)
		return;
	if (w->started) {
		(void)pthread_mutex_lock(&w->lock);
		w->stop = true;
		(void)pthread_cond_signal(&w->wake);
		(void)pthread_mutex_unlock(&w->lock);
		(void)pthread_join(w->thread, NULL);
	}
	sqlite_client_free(w->client);
	(void)pthread_cond_destroy(&w->done);
	(void)pthread_cond_destroy(&w->wake);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

static void ask_for_pass_locked(struct sqlite_wal *w)
{
	w->wanted = true;
	(void)pthread_cond_signal(&w->wake);
}

/*
 * Over the soft bound a pass begins beside the writes. Over the hard one the writer lets a whole pass run alone: then
 * all of the WAL is in the database, and the next write begins the file anew, unless a reader still stands on an old
 * state; hence the deadline.
 */
void sqlite_wal_grew(struct sqlite_wal *w, int pages)
{
	if (pages < SOFT_PAGES)
		return;
	(void)pthread_mutex_lock(&w->lock);
	ask_for_pass_locked(w);
	if (pages >= HARD_PAGES) {
		int64_t deadline_ns = clock_monotonic_ns() + NS_PER_S;
		/* The pass that runs now may have begun before the last commit: the one after it has not. */
		uint64_t target = w->passes + 2;
		bool in_time = true;
		while (w->passes < target && in_time) {
			in_time = clock_cond_wait(&w->done, &w->lock, deadline_ns);
			ask_for_pass_locked(w);
		}
	}
	(void)pthread_mutex_unlock(&w->lock);
}
