#include "agent/slots.h"

#include <assert.h>

#include "model/limits.h"

struct slots slots_make(int64_t vcpus, int64_t memory_mb, int64_t host_vcpus, int64_t host_memory_mb)
{
	int64_t kept = host_memory_mb / 4 < 1024 ? host_memory_mb / 4 : 1024;

	return (struct slots){
		.vcpus = vcpus != 0 ? vcpus : host_vcpus,
		.memory_mb = memory_mb != 0 ? memory_mb : host_memory_mb - kept,
	};
}

bool slots_fit(const struct slots *s, int64_t vcpus, int64_t memory_mb)
{
	return vcpus <= slots_vcpus_free(s) && memory_mb <= slots_memory_mb_free(s);
}

void slots_take(struct slots *s, int64_t vcpus, int64_t memory_mb)
{
	assert(vcpus >= 0 && memory_mb >= 0);
	s->vcpus_taken += vcpus;
	s->memory_mb_taken += memory_mb;
}

void slots_release(struct slots *s, int64_t vcpus, int64_t memory_mb)
{
	assert(vcpus <= s->vcpus_taken && memory_mb <= s->memory_mb_taken);
	s->vcpus_taken -= vcpus;
	s->memory_mb_taken -= memory_mb;
}

static int64_t at_least_0(int64_t n)
{
	return n > 0 ? n : 0;
}

int64_t slots_vcpus_free(const struct slots *s)
{
	return at_least_0(s->vcpus - s->vcpus_taken);
}

int64_t slots_memory_mb_free(const struct slots *s)
{
	return at_least_0(s->memory_mb - s->memory_mb_taken);
}

bool slots_any(const struct slots *s)
{
	return slots_fit(s, 1, JOB_MEMORY_MB_MIN);
}
