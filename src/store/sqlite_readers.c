#include "store/sqlite_readers.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"

struct sqlite_readers {
	struct sqlite_file *file;
	unsigned max;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t freed;
	struct sqlite_client *idle[SQLITE_READERS_MAX];
	unsigned idle_count;
	unsigned opened;
};

struct sqlite_readers *sqlite_readers_new(struct sqlite_file *file, unsigned max)
{
	struct sqlite_readers *r = xcalloc(1, sizeof(*r));

	assert(max > 0 && max <= SQLITE_READERS_MAX);
	r->file = file;
	r->max = max;
	(void)pthread_mutex_init(&r->lock, NULL);
	clock_cond_init(&r->freed);
	return r;
}

void sqlite_readers_free(struct sqlite_readers *r)
{
	if (r == NULL)
		return;
	assert(r->idle_count == r->opened);
	for (unsigned i = 0; i < r->idle_count; i++)
		sqlite_client_free(r->idle[i]);
	(void)pthread_cond_destroy(&r->freed);
	(void)pthread_mutex_destroy(&r->lock);
	free(r);
}

/* An idle connection, a new one while there may be more, or the first that comes back. */
static int take(struct sqlite_readers *r, struct sqlite_client **ret, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + r->file->timeout_ns;
	bool in_time = true;

	*ret = NULL;
	(void)pthread_mutex_lock(&r->lock);
	while (r->idle_count == 0 && r->opened == r->max && in_time)
		in_time = clock_cond_wait(&r->freed, &r->lock, deadline_ns);
	bool open_new = r->idle_count == 0 && r->opened < r->max;
	if (r->idle_count > 0)
		*ret = r->idle[--r->idle_count];
	else if (open_new)
		r->opened++;
	(void)pthread_mutex_unlock(&r->lock);
	if (*ret != NULL)
		return 0;
	if (!open_new)
		return err_set(err, ERR_UNAVAILABLE, "the database cannot keep up: too many reads wait");
	int rc = sqlite_client_open(r->file, "PRAGMA query_only=ON", ret, err);
	if (rc < 0) {
		(void)pthread_mutex_lock(&r->lock);
		r->opened--;
		(void)pthread_cond_signal(&r->freed);
		(void)pthread_mutex_unlock(&r->lock);
	}
	return rc;
}

static void give_back(struct sqlite_readers *r, struct sqlite_client *client)
{
	(void)pthread_mutex_lock(&r->lock);
	r->idle[r->idle_count++] = client;
	(void)pthread_cond_signal(&r->freed);
	(void)pthread_mutex_unlock(&r->lock);
}

int sqlite_readers_read(struct sqlite_readers *r, sql_fn *fn, void *ctx, struct err *err)
{
	struct sqlite_client *client = NULL;
	struct err local = {0};
	int rc = take(r, &client, &local);

	if (rc == 0) {
		rc = sqlite_client_read(client, fn, ctx, &local);
		give_back(r, client);
	}
	if (rc < 0 && err != NULL)
		*err = local;
	return rc;
}

unsigned sqlite_readers_busy(struct sqlite_readers *r)
{
	(void)pthread_mutex_lock(&r->lock);
	unsigned busy = r->opened - r->idle_count;
	(void)pthread_mutex_unlock(&r->lock);
	return busy;
}
