#include "net/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include <systemd/sd-event.h>

#include "base/clock.h"
#include "base/mem.h"

struct loop {
	sd_event *event;
};

struct loop_source {
	sd_event_source *source;
	union {
		loop_fd_fn fd_fn;
		loop_fn fn;
	};
	void *ctx;
};

/* sd-event gives negative errno values. */
static int failed(int rc, const char *what, struct err *err)
{
	errno = -rc;
	return err_sys(err, "%s", what);
}

int loop_new(struct loop **ret, struct err *err)
{
	autoptr(loop) l = xcalloc(1, sizeof(*l));

	int rc = sd_event_new(&l->event);
	if (rc < 0)
		return failed(rc, "make an event loop", err);
	*ret = TAKE(l);
	return 0;
}

void loop_free(struct loop *l)
{
	if (l == NULL)
		return;
	sd_event_unref(l->event);
	free(l);
}

int loop_run(struct loop *l, struct err *err)
{
	int rc = sd_event_loop(l->event);
	return rc < 0 ? failed(rc, "run the event loop", err) : 0;
}

/* Microseconds, rounded up: a deadline is never met early. */
static uint64_t to_usec(int64_t ns)
{
	if (ns <= 0)
		return 0;
	return (uint64_t)ns / 1000 + ((uint64_t)ns % 1000 != 0);
}

int loop_step(struct loop *l, int64_t deadline_ns, struct err *err)
{
	for (;;) {
		int64_t left = deadline_ns - clock_monotonic_ns();
		int rc = sd_event_run(l->event, to_usec(left));
		if (rc < 0)
			return failed(rc, "run the event loop", err);
		if (rc > 0)
			return 0;
		if (left <= 0)
			return err_set(err, ERR_TIMEOUT, "no event came in time");
	}
}

void loop_stop(struct loop *l)
{
	(void)sd_event_exit(l->event, 0);
}

static uint32_t to_epoll(unsigned events)
{
	return ((events & LOOP_READ) != 0 ? (uint32_t)EPOLLIN : 0) |
	       ((events & LOOP_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0);
}

static unsigned from_epoll(uint32_t events)
{
	return ((events & EPOLLIN) != 0 ? LOOP_READ : 0U) | ((events & EPOLLOUT) != 0 ? LOOP_WRITE : 0U) |
	       ((events & (EPOLLHUP | EPOLLERR)) != 0 ? LOOP_HANGUP : 0U);
}

/* The callbacks may free the source: it is not touched after them. */

static int on_fd(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct loop_source *s = userdata;

	(void)source;
	(void)fd;
	s->fd_fn(s->ctx, from_epoll(revents));
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct loop_source *s = userdata;

	(void)source;
	(void)usec;
	s->fn(s->ctx);
	return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct loop_source *s = userdata;

	(void)source;
	(void)info;
	s->fn(s->ctx);
	return 0;
}

/* The end of each loop_add_...(): `rc` is what sd-event said. */
static int added(struct loop_source *source, int rc, enum loop_priority priority, struct loop_source **ret,
		 struct err *err)
{
	autoptr(loop_source) s = source;

	if (rc >= 0)
		rc = sd_event_source_set_priority(s->source, priority);
	if (rc < 0)
		return failed(rc, "add an event source", err);
	*ret = TAKE(s);
	return 0;
}

int loop_add_fd(struct loop *l, int fd, unsigned events, enum loop_priority priority, loop_fd_fn fn, void *ctx,
		struct loop_source **ret, struct err *err)
{
	struct loop_source *s = xcalloc(1, sizeof(*s));

	s->fd_fn = fn;
	s->ctx = ctx;
	return added(s, sd_event_add_io(l->event, &s->source, fd, to_epoll(events), on_fd, s), priority, ret, err);
}

void loop_fd_set_events(struct loop_source *s, unsigned events)
{
	(void)sd_event_source_set_io_events(s->source, to_epoll(events));
}

int loop_add_timer(struct loop *l, int64_t deadline_ns, enum loop_priority priority, loop_fn fn, void *ctx,
		   struct loop_source **ret, struct err *err)
{
	struct loop_source *s = xcalloc(1, sizeof(*s));

	s->fn = fn;
	s->ctx = ctx;
	/* Accuracy 1 us: the default of 250 ms saves wake-ups that we do not have. */
	int rc = sd_event_add_time(l->event, &s->source, CLOCK_MONOTONIC, UINT64_MAX, 1, on_timer, s);
	if (rc >= 0)
		loop_timer_set(s, deadline_ns);
	return added(s, rc, priority, ret, err);
}

void loop_timer_set(struct loop_source *s, int64_t deadline_ns)
{
	if (deadline_ns == LOOP_NEVER) {
		(void)sd_event_source_set_enabled(s->source, SD_EVENT_OFF);
		return;
	}
	(void)sd_event_source_set_time(s->source, to_usec(deadline_ns));
	(void)sd_event_source_set_enabled(s->source, SD_EVENT_ONESHOT);
}

int loop_add_signal(struct loop *l, int signal, loop_fn fn, void *ctx, struct loop_source **ret, struct err *err)
{
	struct loop_source *s = xcalloc(1, sizeof(*s));
	sigset_t set;

	s->fn = fn;
	s->ctx = ctx;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, signal);
	int rc = -pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (rc == 0)
		rc = sd_event_add_signal(l->event, &s->source, signal, on_signal, s);
	return added(s, rc, LOOP_NORMAL, ret, err);
}

void loop_source_free(struct loop_source *s)
{
	if (s == NULL)
		return;
	sd_event_source_disable_unref(s->source);
	free(s);
}
