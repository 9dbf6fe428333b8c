#include "agent/chores.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/queue.h"
#include "net/loop.h"

enum { CHORES_QUEUE = 4096 };

struct item {
	chore_fn run;
	chore_fn done;
	void *ctx;
};

struct chores {
	struct queue *given; /* of struct item */
	struct queue *finished;
	int event; /* counts what was put into `finished` */
	struct loop_source *source;
	pthread_t thread;
	bool has_thread;
};

static void *work(void *arg)
{
	struct chores *w = arg;

	for (;;) {
		struct item *item = queue_pop(w->given, INT64_MAX);
		if (item == NULL)
			return NULL;
		item->run(item->ctx);
		if (!queue_push(w->finished, item, INT64_MAX))
			free(item); /* chores_free() */
		(void)eventfd_write(w->event, 1);
	}
}

static void on_finished(void *ctx, unsigned events)
{
	struct chores *w = ctx;
	eventfd_t count = 0;

	(void)events;
	(void)eventfd_read(w->event, &count);
	for (;;) {
		struct item *item = queue_pop(w->finished, 0);
		if (item == NULL)
			return;
		struct item finished = *item;
		free(item);
		finished.done(finished.ctx);
	}
}

int chores_new(struct loop *loop, struct chores **ret, struct err *err)
{
	autoptr(chores) w = xcalloc(1, sizeof(*w));

	w->given = queue_new(CHORES_QUEUE);
	w->finished = queue_new(CHORES_QUEUE);
	w->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->event < 0)
		return err_sys(err, "make an eventfd");
	int rc = loop_add_fd(loop, w->event, LOOP_READ, LOOP_NORMAL, on_finished, w, &w->source, err);
	if (rc < 0)
		return rc;
	if (pthread_create(&w->thread, NULL, work, w) != 0)
		return err_set(err, ERR_UNAVAILABLE, "cannot start the worker thread");
	w->has_thread = true;
	*ret = TAKE(w);
	return 0;
}

static void drop_items(struct queue *q)
{
	for (;;) {
		struct item *item = queue_pop(q, 0);
		if (item == NULL)
			return;
		free(item);
	}
}

void chores_free(struct chores *w)
{
	if (w == NULL)
		return;
	queue_close(w->given);
	queue_close(w->finished);
	if (w->has_thread)
		(void)pthread_join(w->thread, NULL);
	loop_source_free(w->source);
	drop_items(w->finished);
	queue_free(w->given);
	queue_free(w->finished);
	fd_close(&w->event);
	free(w);
}

bool chores_give(struct chores *w, chore_fn run, chore_fn done, void *ctx)
{
	struct item *item = xcalloc(1, sizeof(*item));

	*item = (struct item){run, done, ctx};
	if (queue_try_push(w->given, item))
		return true;
	free(item);
	return false;
}
