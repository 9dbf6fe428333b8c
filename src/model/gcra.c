#include "model/gcra.h"

#include <assert.h>

int64_t gcra_step_ns(const struct gcra *g)
{
	int64_t step = g->limit > 0 ? g->interval_ns / g->limit : 0;

	/* Rates beyond one permit a nanosecond are no limit that a clock could keep. */
	return step > 0 ? step : 1;
}

struct gcra_verdict gcra_take(const struct gcra *g, int64_t tat, int64_t cost, int64_t now)
{
	if (g->limit <= 0)
		return (struct gcra_verdict){.allowed = true, .tat = tat, .retry_at = now, .remaining = INT64_MAX};
	assert(g->interval_ns > 0 && cost > 0 && now >= 0);

	int64_t step = gcra_step_ns(g);
	int64_t burst_ns = step * g->limit;
	/* Further ahead than all permits together: the clock jumped back, or the interval was shortened. Begin anew. */
	int64_t from = tat < now || tat - now > burst_ns ? now : tat;
	int64_t next = cost > g->limit ? INT64_MAX : from + step * cost;
	int64_t allow_at = next == INT64_MAX ? INT64_MAX : next - burst_ns;
	if (allow_at > now)
		return (struct gcra_verdict){.tat = tat,
					     .wait_ns = allow_at - now,
					     .retry_at = allow_at,
					     .remaining = (burst_ns - (from - now)) / step};
	return (struct gcra_verdict){
		.allowed = true, .tat = next, .retry_at = now, .remaining = (burst_ns - (next - now)) / step};
}
