/* A webhook's body: signed by whoever knows the secret, so nothing in it is to be trusted. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "fuzz.h"
#include "proto/github_webhook.h"

static bool same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* What is kept of a payload says the same as the whole. */
static void check_kept(const struct github_workflow_job *whole, struct str body, struct arena *a)
{
	autoptr(js) tree = NULL;
	autovar(buf) kept = {0};
	struct github_workflow_job part;

	if (js_parse(body, &tree, NULL) < 0 || github_workflow_job_keep(tree, a, &kept, NULL) < 0 ||
	    github_workflow_job_parse(buf_str(&kept), a, &part, NULL) < 0)
		abort();
	assert(part.action == whole->action && same_text(part.action_text, whole->action_text));
	assert(part.job_id == whole->job_id && part.run_id == whole->run_id && part.run_attempt == whole->run_attempt);
	assert(same_text(part.name, whole->name) && same_text(part.workflow_name, whole->workflow_name));
	assert(same_text(part.head_sha, whole->head_sha) && same_text(part.head_branch, whole->head_branch));
	assert(same_text(part.status, whole->status) && same_text(part.conclusion, whole->conclusion));
	assert(same_text(part.runner_name, whole->runner_name) && part.created_at == whole->created_at);
	assert(part.org_id == whole->org_id && same_text(part.org_login, whole->org_login));
	assert(part.repo_id == whole->repo_id && same_text(part.repo_full_name, whole->repo_full_name));
	assert(same_text(part.repo_html_url, whole->repo_html_url) && part.repo_private == whole->repo_private);
	assert(part.installation_id == whole->installation_id && part.labels.count == whole->labels.count);
	for (size_t i = 0; i < part.labels.count; i++)
		assert(same_text(part.labels.items[i], whole->labels.items[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(arena) a = arena_new();
	struct str body = {(const char *)data, size};
	struct github_workflow_job job;

	if (github_workflow_job_parse(body, a, &job, NULL) < 0)
		return 0;
	assert(job.job_id > 0);
	assert(job.run_attempt > 0);
	assert(job.org_id >= 0);
	for (size_t i = 0; i < job.labels.count; i++)
		assert(job.labels.items[i] != NULL);
	check_kept(&job, body, a);
	return 0;
}
