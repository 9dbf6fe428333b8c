#include "shim/limits.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"

#define KILL_MARGIN_NS NS_PER_S

struct limits {
	const struct limits_ops *ops;
	void *ctx;
	struct loop_source *lease_timer;
	struct loop_source *job_timer;
	struct loop_source *grace_timer;
	int64_t grace_at_ns; /* 0: no grace is running */
};

static void on_lease(void *ctx)
{
	struct limits *l = ctx;

	l->ops->lease_over(l->ctx);
}

static void on_job(void *ctx)
{
	struct limits *l = ctx;

	l->ops->time_up(l->ctx);
}

static void on_grace(void *ctx)
{
	struct limits *l = ctx;

	l->ops->grace_over(l->ctx);
}

int limits_new(struct loop *loop, const struct limits_ops *ops, void *ctx, struct limits **ret, struct err *err)
{
	autoptr(limits) l = xcalloc(1, sizeof(*l));

	l->ops = ops;
	l->ctx = ctx;
	int rc = loop_add_timer(loop, LOOP_NEVER, LOOP_URGENT, on_lease, l, &l->lease_timer, err);
	if (rc == 0)
		rc = loop_add_timer(loop, LOOP_NEVER, LOOP_NORMAL, on_job, l, &l->job_timer, err);
	if (rc == 0)
		rc = loop_add_timer(loop, LOOP_NEVER, LOOP_NORMAL, on_grace, l, &l->grace_timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

void limits_free(struct limits *l)
{
	if (l == NULL)
		return;
	loop_source_free(l->lease_timer);
	loop_source_free(l->job_timer);
	loop_source_free(l->grace_timer);
	free(l);
}

void limits_lease(struct limits *l, int64_t deadline_ns)
{
	loop_timer_set(l->lease_timer, deadline_ns);
}

void limits_job(struct limits *l, int64_t timeout_ns)
{
	if (timeout_ns > 0)
		loop_timer_set(l->job_timer, clock_monotonic_ns() + timeout_ns);
}

void limits_grace(struct limits *l, int64_t grace_ns)
{
	int64_t at_ns = clock_monotonic_ns() + grace_ns + KILL_MARGIN_NS;

	if (l->grace_at_ns != 0 && l->grace_at_ns <= at_ns)
		return;
	l->grace_at_ns = at_ns;
	loop_timer_set(l->grace_timer, at_ns);
}

void limits_job_ended(struct limits *l)
{
	loop_timer_set(l->job_timer, LOOP_NEVER);
	loop_timer_set(l->grace_timer, LOOP_NEVER);
}
