#include "base/queue.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/mem.h"

struct queue {
	pthread_mutex_t lock; /* guards all that follows */
	pthread_cond_t filled;
	pthread_cond_t drained;
	bool closed;
	size_t head; /* the oldest item */
	size_t len;
	size_t capacity;
	void *items[];
};

static void must(int rc)
{
	assert(rc == 0);
	(void)rc;
}

struct queue *queue_new(size_t capacity)
{
	pthread_condattr_t monotonic;

	assert(capacity > 0 && capacity <= SIZE_MAX / sizeof(void *) - sizeof(struct queue));
	struct queue *q = xcalloc(1, sizeof(*q) + capacity * sizeof(void *));
	q->capacity = capacity;
	must(pthread_mutex_init(&q->lock, NULL));
	must(pthread_condattr_init(&monotonic));
	must(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC));
	must(pthread_cond_init(&q->filled, &monotonic));
	must(pthread_cond_init(&q->drained, &monotonic));
	must(pthread_condattr_destroy(&monotonic));
	return q;
}

void queue_free(struct queue *q)
{
	if (q == NULL)
		return;
	must(pthread_cond_destroy(&q->drained));
	must(pthread_cond_destroy(&q->filled));
	must(pthread_mutex_destroy(&q->lock));
	free(q);
}

/* False at the deadline. */
static bool wait_locked(struct queue *q, pthread_cond_t *cond, int64_t deadline_ns)
{
	if (deadline_ns == INT64_MAX) {
		must(pthread_cond_wait(cond, &q->lock));
		return true;
	}
	if (deadline_ns <= 0)
		return false;
	struct timespec until = {.tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S};
	int rc = pthread_cond_timedwait(cond, &q->lock, &until);
	assert(rc == 0 || rc == ETIMEDOUT);
	return rc == 0;
}

static bool push_locked(struct queue *q, void *item)
{
	if (q->closed || q->len == q->capacity)
		return false;
	q->items[(q->head + q->len++) % q->capacity] = item;
	must(pthread_cond_signal(&q->filled));
	return true;
}

bool queue_try_push(struct queue *q, void *item)
{
	assert(item != NULL);
	must(pthread_mutex_lock(&q->lock));
	bool pushed = push_locked(q, item);
	must(pthread_mutex_unlock(&q->lock));
	return pushed;
}

bool queue_push(struct queue *q, void *item, int64_t deadline_ns)
{
	assert(item != NULL);
	must(pthread_mutex_lock(&q->lock));
	while (!q->closed && q->len == q->capacity && wait_locked(q, &q->drained, deadline_ns))
		continue;
	bool pushed = push_locked(q, item);
	must(pthread_mutex_unlock(&q->lock));
	return pushed;
}

size_t queue_pop_many(struct queue *q, void **items, size_t max, int64_t deadline_ns)
{
	size_t count = 0;

	must(pthread_mutex_lock(&q->lock));
	while (!q->closed && q->len == 0 && wait_locked(q, &q->filled, deadline_ns))
		continue;
	for (; count < max && q->len > 0; count++) {
		items[count] = q->items[q->head];
		q->head = (q->head + 1) % q->capacity;
		q->len--;
		must(pthread_cond_signal(&q->drained));
	}
	must(pthread_mutex_unlock(&q->lock));
	return count;
}

void *queue_pop(struct queue *q, int64_t deadline_ns)
{
	void *item = NULL;

	return queue_pop_many(q, &item, 1, deadline_ns) == 1 ? item : NULL;
}

void queue_close(struct queue *q)
{
	must(pthread_mutex_lock(&q->lock));
	q->closed = true;
	must(pthread_cond_broadcast(&q->filled));
	must(pthread_cond_broadcast(&q->drained));
	must(pthread_mutex_unlock(&q->lock));
}

size_t queue_len(struct queue *q)
{
	must(pthread_mutex_lock(&q->lock));
	size_t len = q->len;
	must(pthread_mutex_unlock(&q->lock));
	return len;
}
