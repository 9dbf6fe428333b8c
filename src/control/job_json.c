#include "control/job_json.h"

#include <string.h>

static void put_text(struct js *o, const char *key, const char *text)
{
	js_set(o, key, text != NULL ? js_new_text(text) : js_new_null());
}

static void put_int(struct js *o, const char *key, int64_t value)
{
	js_set(o, key, js_new_int(value));
}

/* `none` stands for "not known". */
static void put_known(struct js *o, const char *key, int64_t value, int64_t none)
{
	js_set(o, key, value != none ? js_new_int(value) : js_new_null());
}

static struct js *texts(const struct js_texts *list)
{
	struct js *array = js_new_array();

	for (size_t i = 0; i < list->count; i++)
		js_push(array, js_new_text(list->items[i]));
	return array;
}

static struct js *pairs(const struct js_pairs *list)
{
	struct js *object = js_new_object();

	for (size_t i = 0; i < list->count; i++)
		js_set(object, list->items[i].key, js_new_text(list->items[i].value));
	return object;
}

/* As the Python Nimbus has them; its job_id is our id. */
static void put_old_fields(struct js *o, const struct job *j)
{
	put_int(o, "job_id", j->id);
	put_int(o, "run_id", j->run_id);
	put_int(o, "run_attempt", j->run_attempt);
	put_int(o, "repo_id", j->repo_id);
	js_set(o, "repo_full_name", js_new_text(j->repo_full_name != NULL ? j->repo_full_name : ""));
	js_set(o, "repo_private", js_new_bool(j->repo_private));
	put_int(o, "org_id", j->org_id);
	js_set(o, "labels", texts(&j->labels));
	put_text(o, "status", job_state_text(j->state));
	put_text(o, "agent_id", j->agent_id);
	put_text(o, "executor", j->executor);
	js_set_time(o, "queued_at", j->queued_at != 0 ? j->queued_at : j->created_at);
	js_set_time(o, "leased_at", j->leased_at);
	js_set_time(o, "completed_at", j->completed_at);
	put_text(o, "last_message", j->message);
	js_set_time(o, "updated_at", j->updated_at);
	js_set(o, "metadata", pairs(&j->metadata));
}

struct js *job_record(const struct job *j)
{
	struct js *o = js_new_object();

	put_int(o, "id", j->id);
	put_text(o, "state", job_state_text(j->state));
	put_old_fields(o, j);
	put_text(o, "name", j->name);
	put_text(o, "origin", j->origin);
	put_text(o, "image", j->image);
	put_text(o, "image_digest", j->image_digest);
	js_set(o, "argv", texts(&j->argv));
	put_int(o, "vcpus", j->vcpus);
	put_int(o, "memory_mb", j->memory_mb);
	put_int(o, "disk_mb", j->disk_mb);
	put_int(o, "timeout_seconds", j->timeout_s);
	put_text(o, "network", j->network);
	put_int(o, "attempt", j->attempt);
	put_int(o, "max_attempts", j->max_attempts);
	put_known(o, "exit_code", j->exit_code, -1);
	put_known(o, "signal", j->signal, 0);
	put_text(o, "reason", j->reason);
	put_known(o, "last_seq", j->last_seq, -1);
	js_set(o, "cancel_requested", js_new_bool(j->cancel_requested_at != 0));
	put_known(o, "github_job_id", j->github_job_id, 0);
	put_text(o, "conclusion", j->conclusion);
	js_set_time(o, "created_at", j->created_at);
	js_set_time(o, "started_at", j->started_at);
	return o;
}

/* "hello" of "octo/hello". */
static const char *short_name(const char *full_name)
{
	const char *slash = full_name != NULL ? strrchr(full_name, '/') : NULL;

	return slash != NULL ? slash + 1 : full_name;
}

static struct repository repository_of(const struct job *j)
{
	return (struct repository){
		.id = j->repo_id,
		.name = j->repo_full_name != NULL ? short_name(j->repo_full_name) : "",
		.full_name = j->repo_full_name != NULL ? j->repo_full_name : "",
		.is_private = j->repo_private,
		.html_url = j->repo_html_url,
		.owner_id = j->org_id,
	};
}

struct job_assignment job_assignment_of(const struct job *j)
{
	return (struct job_assignment){
		.job_id = j->id,
		.attempt = j->attempt,
		.org_id = j->org_id,
		.run_id = j->run_id,
		.run_attempt = j->run_attempt,
		.github_job_id = j->github_job_id,
		.repository = repository_of(j),
		.labels = j->labels,
		.executor = j->executor,
		.payload_received_at = j->created_at,
		.metadata = j->metadata,
		.image = j->image,
		.argv = j->argv,
		.env = j->env,
		.has_secret_env = j->has_secret_env,
		.vcpus = j->vcpus,
		.memory_mb = j->memory_mb,
		.disk_mb = j->disk_mb,
		.timeout_seconds = j->timeout_s,
		.network = j->network,
	};
}

struct js *states_record(const struct jobs_counts *counts)
{
	struct js *o = js_new_object();

	for (int s = 0; s < JOB_STATE_COUNT; s++)
		if (counts->by_state[s] > 0)
			js_set(o, job_state_text((enum job_state)s), js_new_int(counts->by_state[s]));
	return o;
}
