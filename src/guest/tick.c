#include "guest/tick.h"

#include <sys/times.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* times() counts in hundredths of a second: below this it says nothing. */
#define SHORTEST_NS (50 * NS_PER_MS)
/* Its last hundredth may have been due. */
#define SLACK_NS (20 * NS_PER_MS)
/* Half of it may have been one wait for the host's CPU. */
#define DEAD_NS (400 * NS_PER_MS)

struct tick_sample tick_sample(void)
{
	struct timespec now;
	struct tms ignored;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (struct tick_sample){
		.ticked_ns = (int64_t)times(&ignored) * (NS_PER_S / sysconf(_SC_CLK_TCK)),
		.true_ns = now.tv_sec * NS_PER_S + now.tv_nsec,
	};
}

int64_t tick_rate(struct tick_sample from, struct tick_sample to)
{
	int64_t passed_ns = to.true_ns - from.true_ns;
	int64_t ticked_ns = to.ticked_ns - from.ticked_ns;

	if (passed_ns >= DEAD_NS && ticked_ns == 0)
		return 0;
	if (passed_ns < SHORTEST_NS || ticked_ns - SLACK_NS <= passed_ns)
		return 1;
	return (ticked_ns - SLACK_NS) / passed_ns;
}
