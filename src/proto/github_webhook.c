#include "proto/github_webhook.h"

#include <stddef.h>
#include <string.h>

#include "base/clock.h"

/* The payload's shape, as it lies in JSON; flattened into struct github_workflow_job. */

struct owner {
	int64_t id;
	const char *login;
};

struct repository {
	int64_t id;
	const char *full_name;
	const char *html_url;
	bool private;
	struct owner owner;
};

struct workflow_job {
	int64_t id;
	int64_t run_id;
	int64_t run_attempt;
	const char *name;
	const char *workflow_name;
	const char *head_sha;
	const char *head_branch;
	const char *status;
	const char *conclusion;
	const char *runner_name;
	struct js_texts labels;
	const char *created_at;
};

struct payload {
	const char *action;
	struct workflow_job job;
	struct repository repository;
	struct owner organization;
	struct owner installation;
};

#define FIELD(owner, json, kind, member, ...)                                                                  \
	{                                                                                                      \
		.name = (json), .type = JS_FIELD_##kind, .offset = offsetof(struct owner, member), __VA_ARGS__ \
	}
#define ID(owner, json, member, ...) FIELD(owner, json, I64, member, .min = 0, .max = INT64_MAX, __VA_ARGS__)

static const struct js_field owner_fields[] = {
	ID(owner, "id", id),
	FIELD(owner, "login", TEXT, login),
};
static const struct js_shape owner_shape = JS_SHAPE(struct owner, owner_fields);

static const struct js_field repository_fields[] = {
	ID(repository, "id", id),
	FIELD(repository, "full_name", TEXT, full_name),
	FIELD(repository, "html_url", TEXT, html_url),
	FIELD(repository, "private", BOOL, private),
	FIELD(repository, "owner", OBJECT, owner, .shape = &owner_shape),
};
static const struct js_shape repository_shape = JS_SHAPE(struct repository, repository_fields);

static const struct js_field job_fields[] = {
	FIELD(workflow_job, "id", I64, id, .min = 1, .max = INT64_MAX, .flags = JS_REQUIRED),
	ID(workflow_job, "run_id", run_id),
	ID(workflow_job, "run_attempt", run_attempt),
	FIELD(workflow_job, "name", TEXT, name),
	FIELD(workflow_job, "workflow_name", TEXT, workflow_name),
	FIELD(workflow_job, "head_sha", TEXT, head_sha),
	FIELD(workflow_job, "head_branch", TEXT, head_branch),
	FIELD(workflow_job, "status", TEXT, status),
	FIELD(workflow_job, "conclusion", TEXT, conclusion),
	FIELD(workflow_job, "runner_name", TEXT, runner_name),
	FIELD(workflow_job, "labels", TEXTS, labels),
	FIELD(workflow_job, "created_at", TEXT, created_at),
};
static const struct js_shape job_shape = JS_SHAPE(struct workflow_job, job_fields);

static const struct js_field payload_fields[] = {
	FIELD(payload, "action", TEXT, action),
	FIELD(payload, "workflow_job", OBJECT, job, .shape = &job_shape, .flags = JS_REQUIRED),
	FIELD(payload, "repository", OBJECT, repository, .shape = &repository_shape),
	FIELD(payload, "organization", OBJECT, organization, .shape = &owner_shape),
	FIELD(payload, "installation", OBJECT, installation, .shape = &owner_shape),
};
static const struct js_shape payload_shape = JS_SHAPE(struct payload, payload_fields);

static enum github_action action_by_name(const char *name)
{
	static const char *const names[] = {
		[GITHUB_ACTION_OTHER] = "",
		[GITHUB_ACTION_WAITING] = "waiting",
		[GITHUB_ACTION_QUEUED] = "queued",
		[GITHUB_ACTION_IN_PROGRESS] = "in_progress",
		[GITHUB_ACTION_COMPLETED] = "completed",
	};

	for (size_t i = GITHUB_ACTION_WAITING; name != NULL && i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			return (enum github_action)i;
	return GITHUB_ACTION_OTHER;
}

/* A repository without an owner in its payload (some old events) stands for itself. */
static int64_t org_of(const struct payload *p)
{
	if (p->repository.owner.id != 0)
		return p->repository.owner.id;
	return p->organization.id != 0 ? p->organization.id : p->repository.id;
}

int github_workflow_job_decode(const struct js *tree, struct arena *arena, struct github_workflow_job *ret,
			       struct err *err)
{
	struct payload p;
	int64_t created_at = 0;
	int r = js_decode(tree, &payload_shape, arena, &p, err);

	if (r < 0)
		return err_wrap(err, "workflow_job payload");
	/* Only shown; a date in another form is no reason to lose a job. */
	if (p.job.created_at != NULL && clock_parse(str_c(p.job.created_at), &created_at, NULL) < 0)
		created_at = 0;
	*ret = (struct github_workflow_job){
		.action = action_by_name(p.action),
		.action_text = p.action,
		.job_id = p.job.id,
		.run_id = p.job.run_id,
		.run_attempt = p.job.run_attempt > 0 ? p.job.run_attempt : 1,
		.name = p.job.name,
		.workflow_name = p.job.workflow_name,
		.head_sha = p.job.head_sha,
		.head_branch = p.job.head_branch,
		.status = p.job.status,
		.conclusion = p.job.conclusion,
		.runner_name = p.job.runner_name,
		.labels = p.job.labels,
		.created_at = created_at,
		.org_id = org_of(&p),
		.org_login = p.repository.owner.login != NULL ? p.repository.owner.login : p.organization.login,
		.repo_id = p.repository.id,
		.repo_full_name = p.repository.full_name,
		.repo_html_url = p.repository.html_url,
		.repo_private = p.repository.private,
		.installation_id = p.installation.id,
	};
	return 0;
}

int github_workflow_job_parse(struct str body, struct arena *arena, struct github_workflow_job *ret, struct err *err)
{
	autoptr(js) tree = NULL;
	int r = js_parse(body, &tree, err);

	return r < 0 ? err_wrap(err, "workflow_job payload") : github_workflow_job_decode(tree, arena, ret, err);
}

int github_workflow_job_keep(const struct js *payload, struct arena *arena, struct buf *ret, struct err *err)
{
	struct payload p = {0};
	int r = js_decode(payload, &payload_shape, arena, &p, err);

	if (r < 0)
		return err_wrap(err, "workflow_job payload");
	autoptr(js) kept = js_encode(&payload_shape, &p);
	js_write(kept, ret);
	return 0;
}
