/*
 * GitHub's webhook payloads as far as we read them. Everything but the job's id may be missing (old servers, odd
 * events), so nothing else is required; what is absent is 0, NULL or empty.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/str.h"

/* In the order in which a job goes through them: state only moves forward. */
enum github_action {
	GITHUB_ACTION_OTHER,
	GITHUB_ACTION_WAITING,
	GITHUB_ACTION_QUEUED,
	GITHUB_ACTION_IN_PROGRESS,
	GITHUB_ACTION_COMPLETED,
};

struct github_workflow_job {
	enum github_action action;
	const char *action_text;
	int64_t job_id; /* GitHub's */
	int64_t run_id;
	int64_t run_attempt; /* 1 when not said */
	const char *name;
	const char *workflow_name;
	const char *head_sha;
	const char *head_branch;
	const char *status;
	const char *conclusion; /* success, failure, cancelled ...; NULL before the end */
	const char *runner_name;
	struct js_texts labels;
	int64_t created_at; /* Unix ns */
	int64_t org_id;	    /* repository.owner.id, else organization.id, else the repository's own id */
	const char *org_login;
	int64_t repo_id;
	const char *repo_full_name;
	const char *repo_html_url;
	bool repo_private;
	int64_t installation_id;
};

/* Bytes to struct; strings live in the arena. ERR_INVALID: not JSON; ERR_INVALID_FIELD names what cannot be. */
int github_workflow_job_parse(struct str body, struct arena *arena, struct github_workflow_job *ret, struct err *err)
	must_check;
/* The same of a tree that is already there, and outlives *ret. */
int github_workflow_job_decode(const struct js *payload, struct arena *arena, struct github_workflow_job *ret,
			       struct err *err) must_check;

/* Of a payload what the functions above read, and nothing else, as JSON of the same shape: a twentieth of its size, and
 * to them the same. */
int github_workflow_job_keep(const struct js *payload, struct arena *arena, struct buf *ret, struct err *err)
	must_check;
