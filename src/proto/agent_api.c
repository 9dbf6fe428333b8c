#include "proto/agent_api.h"

#include "model/limits.h"

#define FIELD(type, member, field_type, ...)                                       \
	{                                                                          \
#member, field_type, .offset = offsetof(type, member), __VA_ARGS__ \
	}

/* --- lease --- */

static const struct js_field lease_request_fields[] = {
	FIELD(struct lease_request, agent_id, JS_FIELD_TEXT, .flags = JS_REQUIRED, .max = 128),
	FIELD(struct lease_request, agent_version, JS_FIELD_TEXT, .max = 128),
	FIELD(struct lease_request, capabilities, JS_FIELD_TEXTS, .max = 100),
	FIELD(struct lease_request, hardware, JS_FIELD_ANY, .flags = JS_OMIT_EMPTY),
	FIELD(struct lease_request, labels, JS_FIELD_TEXTS, .max = 100),
	FIELD(struct lease_request, wait_seconds, JS_FIELD_I64, .min = 0, .max = LEASE_WAIT_S_MAX),
	FIELD(struct lease_request, vcpus_free, JS_FIELD_I64, .min = -1, .max = 1 << 20),
	FIELD(struct lease_request, memory_mb_free, JS_FIELD_I64, .min = -1, .max = INT64_C(1) << 40),
	FIELD(struct lease_request, draining, JS_FIELD_BOOL),
};
static const struct js_shape lease_request_shape = JS_SHAPE(struct lease_request, lease_request_fields);

struct js *lease_request_encode(const struct lease_request *request)
{
	return js_encode(&lease_request_shape, request);
}

static bool is_given(const struct js *v, const char *name)
{
	const struct js *field = js_get(v, name);

	return field != NULL && js_type(field) != JS_NULL;
}

int lease_request_decode(const struct js *v, struct arena *arena, struct lease_request *ret, struct err *err)
{
	int rc = js_decode(v, &lease_request_shape, arena, ret, err);
	if (rc < 0)
		return rc;
	if (!is_given(v, "vcpus_free"))
		ret->vcpus_free = -1;
	if (!is_given(v, "memory_mb_free"))
		ret->memory_mb_free = -1;
	ret->says_draining = is_given(v, "draining");
	return 0;
}

static const struct js_field repository_fields[] = {
	FIELD(struct repository, id, JS_FIELD_I64),
	FIELD(struct repository, name, JS_FIELD_TEXT),
	FIELD(struct repository, full_name, JS_FIELD_TEXT),
	{"private", JS_FIELD_BOOL, .offset = offsetof(struct repository, is_private)},
	FIELD(struct repository, html_url, JS_FIELD_TEXT),
	FIELD(struct repository, owner_id, JS_FIELD_I64, .flags = JS_NULL_ZERO),
};
static const struct js_shape repository_shape = JS_SHAPE(struct repository, repository_fields);

static const struct js_field job_assignment_fields[] = {
	FIELD(struct job_assignment, job_id, JS_FIELD_I64, .flags = JS_REQUIRED, .min = 1, .max = JOB_ID_MAX),
	FIELD(struct job_assignment, attempt, JS_FIELD_I64, .flags = JS_REQUIRED, .min = 1, .max = 1 << 20),
	FIELD(struct job_assignment, org_id, JS_FIELD_I64, .flags = JS_REQUIRED, .min = 1, .max = JOB_ID_MAX),
	FIELD(struct job_assignment, run_id, JS_FIELD_I64),
	FIELD(struct job_assignment, run_attempt, JS_FIELD_I64),
	FIELD(struct job_assignment, github_job_id, JS_FIELD_I64, .flags = JS_NULL_ZERO),
	FIELD(struct job_assignment, repository, JS_FIELD_OBJECT, .shape = &repository_shape),
	FIELD(struct job_assignment, labels, JS_FIELD_TEXTS),
	FIELD(struct job_assignment, executor, JS_FIELD_TEXT),
	FIELD(struct job_assignment, payload_received_at, JS_FIELD_TIME),
	FIELD(struct job_assignment, metadata, JS_FIELD_PAIRS),
	FIELD(struct job_assignment, image, JS_FIELD_TEXT, .flags = JS_REQUIRED, .max = 128),
	FIELD(struct job_assignment, image_digest, JS_FIELD_TEXT, .flags = JS_OMIT_EMPTY, .max = 64),
	FIELD(struct job_assignment, argv, JS_FIELD_TEXTS, .flags = JS_REQUIRED, .max = JOB_ARGV_MAX),
	FIELD(struct job_assignment, env, JS_FIELD_PAIRS, .max = JOB_ENV_MAX),
	FIELD(struct job_assignment, has_secret_env, JS_FIELD_BOOL),
	FIELD(struct job_assignment, vcpus, JS_FIELD_I64, .flags = JS_REQUIRED, .min = 1, .max = JOB_VCPUS_MAX),
	FIELD(struct job_assignment, memory_mb, JS_FIELD_I64, .flags = JS_REQUIRED, .min = JOB_MEMORY_MB_MIN,
	      .max = JOB_MEMORY_MB_MAX),
	FIELD(struct job_assignment, disk_mb, JS_FIELD_I64, .flags = JS_REQUIRED, .min = JOB_DISK_MB_MIN,
	      .max = JOB_DISK_MB_MAX),
	FIELD(struct job_assignment, timeout_seconds, JS_FIELD_I64, .min = 0, .max = JOB_TIMEOUT_S_MAX),
	FIELD(struct job_assignment, network, JS_FIELD_TEXT, .max = 32),
	FIELD(struct job_assignment, services_token, JS_FIELD_TEXT),
	FIELD(struct job_assignment, extras, JS_FIELD_OBJECT, .shape = &job_extras_shape),
	FIELD(struct job_assignment, job_token, JS_FIELD_TEXT, .flags = JS_OMIT_EMPTY),
	FIELD(struct job_assignment, log_token, JS_FIELD_TEXT),
};
static const struct js_shape job_assignment_shape = JS_SHAPE(struct job_assignment, job_assignment_fields);

static const struct js_field lease_answer_fields[] = {
	FIELD(struct lease_answer, fence_token, JS_FIELD_I64, .flags = JS_NULL_ZERO),
	FIELD(struct lease_answer, lease_ttl_seconds, JS_FIELD_I64, .min = 0, .max = 86400),
	FIELD(struct lease_answer, backoff_seconds, JS_FIELD_I64, .min = 0, .max = 86400),
	FIELD(struct lease_answer, draining, JS_FIELD_BOOL, .flags = JS_OMIT_EMPTY),
};
static const struct js_shape lease_answer_shape = JS_SHAPE(struct lease_answer, lease_answer_fields);

struct js *lease_answer_encode(const struct lease_answer *answer)
{
	struct js *v = js_new_object();
	struct js *rest = js_encode(&lease_answer_shape, answer);
	const char *name = NULL;
	const struct js *field = NULL;
	void *iter = NULL;

	js_set(v, "job", answer->has_job ? js_encode(&job_assignment_shape, &answer->job) : js_new_null());
	while (js_each(rest, &iter, &name, &field))
		js_set(v, name, js_copy(field));
	js_free(rest);
	return v;
}

int lease_answer_decode(const struct js *v, struct arena *arena, struct lease_answer *ret, struct err *err)
{
	struct lease_answer answer;

	int rc = js_decode(v, &lease_answer_shape, arena, &answer, err);
	if (rc < 0)
		return rc;
	answer.has_job = is_given(v, "job");
	if (answer.has_job)
		rc = js_decode(js_get(v, "job"), &job_assignment_shape, arena, &answer.job, err);
	if (rc < 0)
		return err_wrap(err, "job");
	if (answer.has_job && (answer.fence_token <= 0 || answer.lease_ttl_seconds <= 0))
		return err_set(err, ERR_INVALID_FIELD, "fence_token, lease_ttl_seconds: a job comes with both");
	*ret = answer;
	return 0;
}

/* --- renew, commands --- */

static const struct js_field renew_request_fields[] = {
	FIELD(struct renew_request, job_id, JS_FIELD_I64, .flags = JS_REQUIRED, .min = 1, .max = JOB_ID_MAX),
	FIELD(struct renew_request, agent_id, JS_FIELD_TEXT, .flags = JS_REQUIRED, .max = 128),
	FIELD(struct renew_request, fence_token, JS_FIELD_I64, .flags = JS_REQUIRED),
	FIELD(struct renew_request, want_secrets, JS_FIELD_BOOL, .flags = JS_OMIT_EMPTY),
};
const struct js_shape renew_request_shape = JS_SHAPE(struct renew_request, renew_request_fields);

static const struct js_field agent_command_fields[] = {
	FIELD(struct agent_command, type, JS_FIELD_TEXT, .flags = JS_REQUIRED, .max = 64),
	FIELD(struct agent_command, job_id, JS_FIELD_I64, .flags = JS_NULL_ZERO),
	FIELD(struct agent_command, fence_token, JS_FIELD_I64, .flags = JS_NULL_ZERO),
	FIELD(struct agent_command, session, JS_FIELD_TEXT, .flags = JS_OMIT_EMPTY, .max = 64),
	FIELD(struct agent_command, exec, JS_FIELD_ANY, .flags = JS_OMIT_EMPTY),
};
static const struct js_shape agent_command_shape = JS_SHAPE(struct agent_command, agent_command_fields);

static const struct js_field exec_tty_fields[] = {
	FIELD(struct exec_tty, rows, JS_FIELD_I64, .min = 0, .max = JOB_ROWS_MAX),
	FIELD(struct exec_tty, cols, JS_FIELD_I64, .min = 0, .max = JOB_ROWS_MAX),
};
const struct js_shape exec_tty_shape = JS_SHAPE(struct exec_tty, exec_tty_fields);

static const struct js_field exec_request_fields[] = {
	FIELD(struct exec_request, argv, JS_FIELD_TEXTS, .flags = JS_REQUIRED, .max = JOB_ARGV_MAX),
	FIELD(struct exec_request, env, JS_FIELD_PAIRS, .max = JOB_ENV_MAX),
	FIELD(struct exec_request, cwd, JS_FIELD_TEXT, .flags = JS_OMIT_EMPTY, .max = JOB_PATH_MAX),
	{"stdin", JS_FIELD_BOOL, .offset = offsetof(struct exec_request, stdin_open)},
	FIELD(struct exec_request, tty, JS_FIELD_OBJECT, .shape = &exec_tty_shape),
};
const struct js_shape exec_request_shape = JS_SHAPE(struct exec_request, exec_request_fields);

static const struct js_field renew_answer_fields[] = {
	FIELD(struct renew_answer, renewed, JS_FIELD_BOOL),
	FIELD(struct renew_answer, lease_ttl_seconds, JS_FIELD_I64, .min = 0, .max = 86400),
	FIELD(struct renew_answer, commands, JS_FIELD_OBJECTS, .shape = &agent_command_shape),
	FIELD(struct renew_answer, secret_env, JS_FIELD_ANY, .flags = JS_OMIT_EMPTY),
};
const struct js_shape renew_answer_shape = JS_SHAPE(struct renew_answer, renew_answer_fields);

static const struct js_field commands_request_fields[] = {
	FIELD(struct commands_request, agent_id, JS_FIELD_TEXT, .flags = JS_REQUIRED, .max = 128),
	FIELD(struct commands_request, wait_seconds, JS_FIELD_I64, .min = 0, .max = LEASE_WAIT_S_MAX),
};
const struct js_shape commands_request_shape = JS_SHAPE(struct commands_request, commands_request_fields);

static const struct js_field commands_answer_fields[] = {
	FIELD(struct commands_answer, commands, JS_FIELD_OBJECTS, .shape = &agent_command_shape),
};
const struct js_shape commands_answer_shape = JS_SHAPE(struct commands_answer, commands_answer_fields);

/* --- status --- */

static const struct js_field status_report_fields[] = {
	FIELD(struct status_report, agent_id, JS_FIELD_TEXT, .flags = JS_REQUIRED, .max = 128),
	FIELD(struct status_report, job_id, JS_FIELD_I64, .flags = JS_REQUIRED, .min = 1, .max = JOB_ID_MAX),
	FIELD(struct status_report, fence_token, JS_FIELD_I64, .flags = JS_REQUIRED),
	FIELD(struct status_report, status, JS_FIELD_TEXT, .flags = JS_REQUIRED, .max = 32),
	FIELD(struct status_report, message, JS_FIELD_TEXT, .max = 4096),
	FIELD(struct status_report, attempt, JS_FIELD_I64, .min = 0, .max = 1 << 20),
	FIELD(struct status_report, exit_code, JS_FIELD_I64, .min = -1, .max = 255),
	FIELD(struct status_report, signal, JS_FIELD_I64, .min = 0, .max = 64),
	FIELD(struct status_report, reason, JS_FIELD_TEXT, .max = 64),
	FIELD(struct status_report, last_seq, JS_FIELD_I64, .min = -1, .max = JOB_ID_MAX),
	FIELD(struct status_report, metadata, JS_FIELD_PAIRS, .flags = JS_OMIT_EMPTY),
};
static const struct js_shape status_report_shape = JS_SHAPE(struct status_report, status_report_fields);

struct js *status_report_encode(const struct status_report *report)
{
	struct js *v = js_encode(&status_report_shape, report);

	if (report->exit_code < 0)
		js_set(v, "exit_code", js_new_null());
	if (report->signal == 0)
		js_set(v, "signal", js_new_null());
	if (report->last_seq < 0)
		js_set(v, "last_seq", js_new_null());
	return v;
}

int status_report_decode(const struct js *v, struct arena *arena, struct status_report *ret, struct err *err)
{
	int rc = js_decode(v, &status_report_shape, arena, ret, err);
	if (rc < 0)
		return rc;
	if (!is_given(v, "exit_code"))
		ret->exit_code = -1;
	if (!is_given(v, "last_seq"))
		ret->last_seq = -1;
	return 0;
}
