/* A webhook's body: signed by whoever knows the secret, so nothing in it is to be trusted. */
#include <assert.h>

#include "base/arena.h"
#include "fuzz.h"
#include "proto/github_webhook.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(arena) a = arena_new();
	struct github_workflow_job job;

	if (github_workflow_job_parse((struct str){(const char *)data, size}, a, &job, NULL) < 0)
		return 0;
	assert(job.job_id > 0);
	assert(job.run_attempt > 0);
	assert(job.org_id >= 0);
	for (size_t i = 0; i < job.labels.count; i++)
		assert(job.labels.items[i] != NULL);
	return 0;
}
