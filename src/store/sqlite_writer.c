#include "store/sqlite_writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/queue.h"
#include "store/sqlite_wal.h"

enum { GROUP_MAX = 256 }; /* requests in one commit */

struct sqlite_writer {
	struct sqlite_file *file;
	struct sqlite_client *client;
	struct sqlite_wal *wal;
	struct queue *queue; /* of struct request */
	pthread_t thread;
	bool started;
};

/* One write: on the caller's stack where it waits, on the heap where an inbox takes the answer. */
struct request {
	sql_fn *fn;
	void *ctx;
	int rc;
	struct err err;
	struct sql_inbox *inbox;
	sql_done_fn *done;
	bool finished;
	pthread_mutex_t lock; /* finished */
	pthread_cond_t answered;
};

/* The request may be gone as soon as its owner has seen the answer. */
static void answer(struct request *r)
{
	if (r->inbox != NULL) {
		sql_inbox_post(r->inbox, r->done, r->ctx, r->rc, &r->err);
		free(r);
		return;
	}
	(void)pthread_mutex_lock(&r->lock);
	r->finished = true;
	(void)pthread_cond_signal(&r->answered);
	(void)pthread_mutex_unlock(&r->lock);
}

/* Runs one request inside the group's transaction; false when that transaction is gone. */
static bool write_in_group(struct sqlite_client *c, struct request *r)
{
	struct err err;

	r->err = (struct err){0};
	if (sqlite_client_run(c, "SAVEPOINT request", &err) < 0)
		return false;
	r->rc = sqlite_client_call(c, true, r->fn, r->ctx, &r->err);
	if (!sqlite_client_in_transaction(c))
		return false;
	if (r->rc < 0 && sqlite_client_run(c, "ROLLBACK TO request", &err) < 0)
		return false;
	return sqlite_client_run(c, "RELEASE request", &err) == 0;
}

/* All requests in one transaction; false when it was lost and none of them has happened. */
static bool write_group(struct sqlite_client *c, struct request **group, size_t count)
{
	struct err err = {0};
	int rc = sqlite_client_run(c, "BEGIN IMMEDIATE", &err);

	for (size_t i = 0; i < count; i++) {
		/* Somebody else holds the file: each on its own would only wait as long again. */
		if (rc < 0) {
			group[i]->err = err;
			group[i]->rc = rc;
		} else if (!write_in_group(c, group[i])) {
			return false;
		}
	}
	return rc < 0 || sqlite_client_run(c, "COMMIT", &err) == 0;
}

static void write_alone(struct sqlite_client *c, struct request *r)
{
	r->err = (struct err){0};
	r->rc = sqlite_client_write(c, r->fn, r->ctx, &r->err);
}

static void *writer_main(void *arg)
{
	struct sqlite_writer *w = arg;
	void *group[GROUP_MAX];

	for (;;) {
		size_t count = queue_pop_many(w->queue, group, GROUP_MAX, INT64_MAX);
		if (count == 0)
			return NULL;
		bool done = count > 1 && !atomic_load(&w->file->broken) &&
			    write_group(w->client, (struct request **)group, count);
		if (!done) {
			sqlite_client_undo(w->client);
			for (size_t i = 0; i < count; i++)
				write_alone(w->client, group[i]);
		}
		for (size_t i = 0; i < count; i++)
			answer(group[i]);
		sqlite_wal_grew(w->wal, sqlite_client_take_wal_pages(w->client));
	}
}

int sqlite_writer_new(struct sqlite_file *file, struct sqlite_client *client, struct sqlite_writer **ret,
		      struct err *err)
{
	autoptr(sqlite_writer) w = xcalloc(1, sizeof(*w));

	w->file = file;
	w->client = client;
	w->queue = queue_new(SQLITE_WRITES_MAX);
	sqlite_client_watch_wal(client);
	int rc = sqlite_wal_new(file, &w->wal, err);
	if (rc < 0)
		return rc;
	errno = pthread_create(&w->thread, NULL, writer_main, w);
	if (errno != 0)
		return err_sys(err, "start a thread");
	w->started = true;
	*ret = TAKE(w);
	return 0;
}

void sqlite_writer_free(struct sqlite_writer *w)
{
	if (w == NULL)
		return;
	queue_close(w->queue);
	if (w->started)
		(void)pthread_join(w->thread, NULL);
	sqlite_wal_free(w->wal);
	sqlite_client_free(w->client); /* the last one: SQLite checkpoints and removes the WAL */
	queue_free(w->queue);
	free(w);
}

static int overloaded(struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "the database cannot keep up: too many writes wait");
}

int sqlite_writer_write(struct sqlite_writer *w, sql_fn *fn, void *ctx, struct err *err)
{
	struct request r = {.fn = fn, .ctx = ctx};

	(void)pthread_mutex_init(&r.lock, NULL);
	(void)pthread_cond_init(&r.answered, NULL);
	bool pushed = queue_push(w->queue, &r, clock_monotonic_ns() + w->file->timeout_ns);
	/* Each step of the writer has its own deadline, so this wait ends. */
	(void)pthread_mutex_lock(&r.lock);
	while (pushed && !r.finished)
		(void)pthread_cond_wait(&r.answered, &r.lock);
	(void)pthread_mutex_unlock(&r.lock);
	(void)pthread_cond_destroy(&r.answered);
	(void)pthread_mutex_destroy(&r.lock);
	if (!pushed)
		return overloaded(err);
	if (r.rc < 0 && err != NULL)
		*err = r.err;
	return r.rc;
}

int sqlite_writer_start(struct sqlite_writer *w, struct sql_inbox *inbox, sql_fn *fn, sql_done_fn *done, void *ctx,
			struct err *err)
{
	struct request *r = xcalloc(1, sizeof(*r));

	*r = (struct request){.fn = fn, .ctx = ctx, .inbox = inbox, .done = done};
	if (!queue_try_push(w->queue, r)) {
		free(r);
		return overloaded(err);
	}
	return 0;
}

size_t sqlite_writer_waiting(struct sqlite_writer *w)
{
	return queue_len(w->queue);
}
