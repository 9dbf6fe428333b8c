#include "vm/tsc.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"

#if defined(__x86_64__)
#include <x86intrin.h>

struct sample {
	int64_t ns;
	int64_t ticks;
};

static int64_t raw_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* Clock and counter at one moment: of several tries the one with the least time between two readings of the clock. */
static struct sample sample(void)
{
	struct sample best = {0};
	int64_t best_width = INT64_MAX;

	for (int i = 0; i < 8; i++) {
		int64_t before = raw_ns();
		int64_t ticks = (int64_t)__rdtsc();
		int64_t width = raw_ns() - before;
		if (width < best_width) {
			best_width = width;
			best = (struct sample){.ns = before + width / 2, .ticks = ticks};
		}
	}
	return best;
}

int64_t tsc_khz(void)
{
	struct timespec pause = {.tv_nsec = 20 * NS_PER_MS};
	struct sample start = sample();

	while (nanosleep(&pause, &pause) != 0 && errno == EINTR)
		;
	struct sample end = sample();
	return (end.ticks - start.ticks) * 1000000 / (end.ns - start.ns);
}

#else

int64_t tsc_khz(void)
{
	return 0;
}

#endif
