#include "agent/job/lease.h"

#include "base/clock.h"
#include "net/http_client.h"

struct lease lease_adopted(int64_t fence, int64_t deadline_ns, int64_t now_ns)
{
	int64_t left = deadline_ns - now_ns;

	return (struct lease){.fence = fence, .deadline_ns = deadline_ns, .ttl_ns = left > NS_PER_S ? left : NS_PER_S};
}

void lease_renewed(struct lease *l, int64_t sent_ns, int64_t ttl_ns)
{
	l->ttl_ns = ttl_ns;
	l->failures = 0;
	if (sent_ns + ttl_ns > l->deadline_ns)
		l->deadline_ns = sent_ns + ttl_ns;
}

int64_t lease_next_renewal(const struct lease *l, int64_t sent_ns)
{
	return sent_ns + l->ttl_ns / 3;
}

int64_t lease_next_try(struct lease *l, int64_t now_ns)
{
	static const int64_t base_ns = 200 * NS_PER_MS;
	int64_t most = l->ttl_ns / 12;
	int64_t wait = http_backoff(l->failures++, base_ns < most ? base_ns : most, most);

	/* A little of it is certain: full jitter alone would now and then ask in a tight row. */
	return now_ns + most / 24 + wait;
}

bool lease_over(const struct lease *l, int64_t now_ns)
{
	return now_ns >= l->deadline_ns;
}
