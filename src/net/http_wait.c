#include "net/http_wait.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

struct http_wait_list {
	struct http_waits *waits;
	struct http_waiter *first; /* the longest waiting */
	struct http_waiter *last;
	size_t count;
	uint64_t woken_at;
};

struct http_waits {
	http_ready_fn *ready;
	int epoll_fd;
	int timer_fd;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock;	   /* guards all below, the lists, and the waiters in them */
	struct http_waiter **heap; /* the earliest deadline first */
	size_t count;
	size_t cap;
	struct http_waiter **by_fd;
	size_t by_fd_size;
	uint64_t wakes;	 /* how often a list was woken: the order of wake-ups */
	uint32_t serial; /* tells a waiter's event from that of an earlier one on the same descriptor */
	bool stopping;	 /* no more waits */
	bool ending;	 /* no more thread */
};

/* --- the heap of deadlines --- */

static void heap_put(struct http_waits *w, size_t at, struct http_waiter *waiter)
{
	w->heap[at] = waiter;
	waiter->heap_at = at;
}

static void heap_up(struct http_waits *w, size_t at, struct http_waiter *waiter)
{
	for (; at > 0; at = (at - 1) / 2) {
		struct http_waiter *parent = w->heap[(at - 1) / 2];
		if (parent->deadline_ns <= waiter->deadline_ns)
			break;
		heap_put(w, at, parent);
	}
	heap_put(w, at, waiter);
}

static void heap_down(struct http_waits *w, size_t at, struct http_waiter *waiter)
{
	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= w->count)
			break;
		if (child + 1 < w->count && w->heap[child + 1]->deadline_ns < w->heap[child]->deadline_ns)
			child++;
		if (w->heap[child]->deadline_ns >= waiter->deadline_ns)
			break;
		heap_put(w, at, w->heap[child]);
		at = child;
	}
	heap_put(w, at, waiter);
}

static void heap_insert(struct http_waits *w, struct http_waiter *waiter)
{
	if (w->count == w->cap) {
		w->cap = w->cap > 0 ? 2 * w->cap : 64;
		w->heap = xreallocarray(w->heap, w->cap, sizeof(struct http_waiter *));
	}
	heap_up(w, w->count++, waiter);
}

static void heap_remove(struct http_waits *w, const struct http_waiter *waiter)
{
	size_t at = waiter->heap_at;
	struct http_waiter *last = w->heap[--w->count];

	assert(w->heap[at] == waiter || at == w->count);
	if (last == waiter)
		return;
	if (at > 0 && w->heap[(at - 1) / 2]->deadline_ns > last->deadline_ns)
		heap_up(w, at, last);
	else
		heap_down(w, at, last);
}

/* --- one wait --- */

static void arm_locked(struct http_waits *w)
{
	int64_t at = w->ending || w->count == 0 ? 0 : w->heap[0]->deadline_ns;
	/* All zeros would disarm it; a time long past fires at once. */
	struct itimerspec spec = {.it_value = {.tv_sec = at / NS_PER_S, .tv_nsec = at % NS_PER_S}};
	if (w->ending)
		spec.it_value.tv_nsec = 1;
	int rc = timerfd_settime(w->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
	assert(rc == 0);
}

static void list_add(struct http_wait_list *list, struct http_waiter *waiter)
{
	if (list == NULL)
		return;
	waiter->prev = list->last;
	waiter->next = NULL;
	if (list->last != NULL)
		list->last->next = waiter;
	else
		list->first = waiter;
	list->last = waiter;
	list->count++;
}

static void list_remove(struct http_wait_list *list, struct http_waiter *waiter)
{
	if (list == NULL)
		return;
	if (waiter->prev != NULL)
		waiter->prev->next = waiter->next;
	else
		list->first = waiter->next;
	if (waiter->next != NULL)
		waiter->next->prev = waiter->prev;
	else
		list->last = waiter->prev;
	list->count--;
}

static void end_locked(struct http_waits *w, struct http_waiter *waiter, enum http_wait_end end)
{
	list_remove(waiter->list, waiter);
	heap_remove(w, waiter);
	(void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, waiter->fd, NULL);
	w->by_fd[waiter->fd] = NULL;
	waiter->end = end;
	w->ready(waiter);
}

/* Low half: the descriptor; high half: whose. */
static uint64_t event_key(const struct http_waiter *waiter)
{
	return (uint64_t)waiter->serial << 32 | (uint32_t)waiter->fd;
}

static bool may_wait_locked(const struct http_waits *w, struct http_waiter *waiter, uint64_t since)
{
	if (w->stopping)
		waiter->end = HTTP_WAIT_STOPPED;
	else if (waiter->deadline_ns <= clock_monotonic_ns())
		waiter->end = HTTP_WAIT_DEADLINE;
	else if (waiter->list != NULL && waiter->list->woken_at > since)
		waiter->end = HTTP_WAIT_WOKEN;
	else
		return true;
	return false;
}

static void watch_locked(struct http_waits *w, struct http_waiter *waiter)
{
	size_t fd = (size_t)waiter->fd;

	if (fd >= w->by_fd_size) {
		size_t size = 2 * fd + 64;
		w->by_fd = xreallocarray(w->by_fd, size, sizeof(struct http_waiter *));
		memset(w->by_fd + w->by_fd_size, 0, (size - w->by_fd_size) * sizeof(struct http_waiter *));
		w->by_fd_size = size;
	}
	assert(w->by_fd[fd] == NULL);
	w->by_fd[fd] = waiter;
	waiter->serial = ++w->serial;
	struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.u64 = event_key(waiter)};
	/* Where the kernel has no memory for it, the deadline alone ends the wait. */
	(void)epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, waiter->fd, &event);
}

bool http_waits_enter(struct http_waits *w, struct http_waiter *waiter, uint64_t since)
{
	assert(waiter->fd >= 0 && (waiter->list == NULL || waiter->list->waits == w));
	pthread_mutex_lock(&w->lock);
	bool waits = may_wait_locked(w, waiter, since);
	if (waits) {
		list_add(waiter->list, waiter);
		heap_insert(w, waiter);
		watch_locked(w, waiter);
		if (waiter->heap_at == 0)
			arm_locked(w);
	}
	pthread_mutex_unlock(&w->lock);
	return waits;
}

uint64_t http_waits_now(struct http_waits *w)
{
	pthread_mutex_lock(&w->lock);
	uint64_t now = w->wakes;
	pthread_mutex_unlock(&w->lock);
	return now;
}

size_t http_waits_count(struct http_waits *w)
{
	pthread_mutex_lock(&w->lock);
	size_t count = w->count;
	pthread_mutex_unlock(&w->lock);
	return count;
}

/* --- lists --- */

struct http_wait_list *http_waits_list_new(struct http_waits *w)
{
	struct http_wait_list *list = xcalloc(1, sizeof(*list));

	list->waits = w;
	return list;
}

void http_wait_list_free(struct http_wait_list *list)
{
	assert(list == NULL || list->count == 0);
	free(list);
}

size_t http_wait_wake(struct http_wait_list *list, size_t max, http_match_fn *match, void *match_ctx)
{
	struct http_waits *w = list->waits;
	size_t woken = 0;

	pthread_mutex_lock(&w->lock);
	list->woken_at = ++w->wakes;
	for (struct http_waiter *waiter = list->first, *next = NULL; waiter != NULL && woken < max; waiter = next) {
		next = waiter->next;
		if (match != NULL && !match(match_ctx, waiter->tag))
			continue;
		end_locked(w, waiter, HTTP_WAIT_WOKEN);
		woken++;
	}
	pthread_mutex_unlock(&w->lock);
	return woken;
}

size_t http_wait_count(struct http_wait_list *list)
{
	pthread_mutex_lock(&list->waits->lock);
	size_t count = list->count;
	pthread_mutex_unlock(&list->waits->lock);
	return count;
}

/* --- the thread --- */

static void hang_up_locked(struct http_waits *w, uint64_t key)
{
	uint32_t fd = (uint32_t)key;
	struct http_waiter *waiter = fd < w->by_fd_size ? w->by_fd[fd] : NULL;

	/* Its wait may have ended, and another begun on the same descriptor, since the event was fetched. */
	if (waiter != NULL && event_key(waiter) == key)
		end_locked(w, waiter, HTTP_WAIT_GONE);
}

static void expire_locked(struct http_waits *w)
{
	int64_t now = clock_monotonic_ns();

	while (w->count > 0 && w->heap[0]->deadline_ns <= now)
		end_locked(w, w->heap[0], HTTP_WAIT_DEADLINE);
}

static const uint64_t TIMER_KEY = UINT64_MAX;

static void *watch(void *arg)
{
	struct http_waits *w = arg;
	struct epoll_event events[64];
	bool ending = false;

	while (!ending) {
		int count = epoll_wait(w->epoll_fd, events, ARRAY_LEN(events), -1);
		assert(count >= 0 || errno == EINTR);
		pthread_mutex_lock(&w->lock);
		for (int i = 0; i < count; i++) {
			if (events[i].data.u64 != TIMER_KEY)
				hang_up_locked(w, events[i].data.u64);
		}
		expire_locked(w);
		arm_locked(w);
		ending = w->ending;
		pthread_mutex_unlock(&w->lock);
	}
	return NULL;
}

/* --- life --- */

struct http_waits *http_waits_new(http_ready_fn *ready)
{
	struct http_waits *w = xcalloc(1, sizeof(*w));

	w->ready = ready;
	w->epoll_fd = -1;
	w->timer_fd = -1;
	pthread_mutex_init(&w->lock, NULL);
	return w;
}

int http_waits_start(struct http_waits *w, struct err *err)
{
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = TIMER_KEY};
	if (w->epoll_fd < 0 || w->timer_fd < 0 || epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->timer_fd, &event) != 0)
		return err_sys(err, "watch waiting connections");
	errno = pthread_create(&w->thread, NULL, watch, w);
	if (errno != 0)
		return err_sys(err, "start the thread that watches waiting connections");
	w->started = true;
	return 0;
}

void http_waits_stop(struct http_waits *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	while (w->count > 0)
		end_locked(w, w->heap[0], HTTP_WAIT_STOPPED);
	pthread_mutex_unlock(&w->lock);
}

void http_waits_free(struct http_waits *w)
{
	if (w == NULL)
		return;
	if (w->started) {
		pthread_mutex_lock(&w->lock);
		assert(w->count == 0);
		w->ending = true;
		arm_locked(w);
		pthread_mutex_unlock(&w->lock);
		(void)pthread_join(w->thread, NULL);
	}
	fd_close(&w->epoll_fd);
	fd_close(&w->timer_fd);
	pthread_mutex_destroy(&w->lock);
	free(w->heap);
	free(w->by_fd);
	free(w);
}
