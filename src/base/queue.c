#include "base/queue.h"

#include <assert.h>
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
	assert(capacity > 0 && capacity <= SIZE_MAX / sizeof(void *) - sizeof(struct queue));
	struct queue *q = xcalloc(1, sizeof(*q) + capacity * sizeof(void *));
	q->capacity = capacity;
	must(pthread_mutex_init(&q->lock, NULL));
	clock_cond_init(&q->filled);
	clock_cond_init(&q->drained);
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
	while (!q->closed && q->len == q->capacity && clock_cond_wait(&q->drained, &q->lock, deadline_ns))
		continue;
	bool pushed = push_locked(q, item);
	must(pthread_mutex_unlock(&q->lock));
	return pushed;
}

size_t queue_pop_many(struct queue *q, void **items, size_t max, int64_t deadline_ns)
{
	size_t count = 0;

	must(pthread_mutex_lock(&q->lock));
	while (!q->closed && q->len == 0 && clock_cond_wait(&q->filled, &q->lock, deadline_ns))
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
