#include "shim/patience.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"

/* Many times what a boot and a clone take on a machine with CPUs to spare. On one without, as many times longer, but
 * not above the most. */
#define BOOT_NS (20 * NS_PER_S)
#define CLONE_NS (5 * NS_PER_S)
#define MOST_NS (60 * NS_PER_S)

int64_t patience_ns(bool clone, double load, long cpus)
{
	int64_t alone_ns = clone ? CLONE_NS : BOOT_NS;

	if (cpus < 1 || load <= (double)cpus)
		return alone_ns;
	double busy_ns = (double)alone_ns * load / (double)cpus;
	return busy_ns < (double)MOST_NS ? (int64_t)busy_ns : MOST_NS;
}

int64_t patience_now_ns(bool clone)
{
	double load = -1;

	if (getloadavg(&load, 1) != 1)
		load = -1;
	return patience_ns(clone, load, sysconf(_SC_NPROCESSORS_ONLN));
}
