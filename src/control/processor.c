/*
 * Turns accepted deliveries into jobs or recorded refusals. A batch is read, understood and ended in one commit, in the
 * order in which the deliveries came; what cannot be written is found by halving, so that it holds up nobody else.
 * Every step is idempotent: a delivery that was half done when the process ended is done again.
 */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/control_metrics.h"
#include "control/db/deliveries_db.h"
#include "control/handlers.h"
#include "model/limits.h"
#include "proto/github_webhook.h"

/* As many as the writer may be busy with while a webhook or a lease waits for it (measured, webhooks at 2,000/s: p99 of
 * 10 to 16 ms with 16, 27 to 48 ms with 64). */
enum { BATCH = 16 };
#define IDLE_NS (1 * NS_PER_S)

/* What a GitHub job runs while there is no GitHub App to make a runner with: it shows that the way to a VM is open. */
static const char dry_run_script[] =
	"echo \"dry run of job $GITHUB_JOB ($GITHUB_JOB_ID) of $GITHUB_REPOSITORY: its steps are not run\"; uname -a";

static void add_env(struct js_pairs *env, const char *key, const char *value)
{
	if (value != NULL)
		env->items[env->count++] = (struct js_pair){key, value};
}

static struct js_pairs dry_run_env(const struct github_workflow_job *event, struct arena *a)
{
	struct js_pairs env = {.items = arena_calloc(a, 8, sizeof(struct js_pair))};

	add_env(&env, "GITHUB_JOB_ID", arena_printf(a, "%" PRId64, event->job_id));
	add_env(&env, "GITHUB_RUN_ID", arena_printf(a, "%" PRId64, event->run_id));
	add_env(&env, "GITHUB_RUN_ATTEMPT", arena_printf(a, "%" PRId64, event->run_attempt));
	add_env(&env, "GITHUB_JOB", event->name);
	add_env(&env, "GITHUB_WORKFLOW", event->workflow_name);
	add_env(&env, "GITHUB_REPOSITORY", event->repo_full_name);
	add_env(&env, "GITHUB_SHA", event->head_sha);
	return env;
}

static struct job_spec run_as(const struct app *app, const struct github_workflow_job *event,
			      const struct label_set *labels, struct arena *a)
{
	const char **argv = arena_calloc(a, 3, sizeof(*argv));

	argv[0] = "sh";
	argv[1] = "-c";
	argv[2] = dry_run_script;
	return (struct job_spec){
		.org_id = event->org_id,
		.name = event->name,
		.image = "demo",
		.argv = {argv, 3},
		.env = dry_run_env(event, a),
		.labels = *labels,
		.vcpus = JOB_VCPUS_DEFAULT,
		.memory_mb = JOB_MEMORY_MB_DEFAULT,
		.disk_mb = JOB_DISK_MB_DEFAULT,
		.timeout_s = JOB_TIMEOUT_S_DEFAULT,
		.max_attempts = app->settings->max_attempts,
	};
}

/* NULL for a delivery that is for us; otherwise why it becomes no job. */
static const char *read_event(const struct delivery *d, struct arena *a, struct github_workflow_job *event,
			      struct label_set *labels)
{
	struct err bad = {0};

	if (strcmp(d->event, "ping") == 0)
		return "ping";
	if (strcmp(d->event, "workflow_job") != 0)
		return arena_printf(a, "event '%.100s' is not for us", d->event);
	if (github_workflow_job_parse(d->body, a, event, &bad) < 0 ||
	    label_set_make(event->labels.items, event->labels.count, a, labels, &bad) < 0)
		return arena_strdup(a, bad.msg);
	if (event->action == GITHUB_ACTION_OTHER)
		return arena_printf(a, "action '%.100s' is not for us",
				    event->action_text != NULL ? event->action_text : "");
	if (event->org_id == 0)
		return "workflow_job payload: no repository, so no owner";
	return label_set_has(labels, "nimbus") ? NULL : "no nimbus label";
}

static struct delivery_end decide(const struct app *app, const struct delivery *d, struct arena *a)
{
	struct github_workflow_job *event = arena_alloc(a, sizeof(*event));
	struct job_spec *spec = arena_alloc(a, sizeof(*spec));
	struct label_set labels = {0};
	struct delivery_end end = {.id = d->id, .refusal = read_event(d, a, event, &labels)};

	if (end.refusal != NULL)
		return end;
	*spec = run_as(app, event, &labels, a);
	end.fold = (struct github_fold){.event = event, .run_as = spec, .leasable = app->settings->github_dry_run};
	return end;
}

static void note(const struct app *app, const struct delivery_end *end)
{
	if (end->refusal != NULL)
		metrics_inc(app->metrics, M_WEBHOOKS_REFUSED);
	log_info("delivery processed", F("delivery", end->id), F("refused", end->refusal != NULL ? end->refusal : ""));
}

/* False: the database does not work, so trying the next one now is no use. */
static bool put_off(const struct app *app, const struct delivery_end *end, const struct err *why)
{
	struct err err = {0};

	log_warn("delivery not processed: it is tried again", F("delivery", end->id), F("error", why));
	return deliveries_db_retry(&app->db, end->id, why->msg, &err) == 0;
}

/* All of them, each with its own outcome. False as above. */
static bool settle(const struct app *app, const struct delivery_end *ends, size_t count)
{
	struct err err = {0};
	size_t half = count / 2;

	int r = deliveries_db_end(&app->db, ends, count, &err);
	for (size_t i = 0; i < count && r == 0; i++)
		note(app, &ends[i]);
	if (r >= 0)
		return r != DELIVERIES_DB_ELSEWHERE;
	if (err.code == ERR_UNAVAILABLE) {
		outage_note(app->outage, r, &err, "deliveries");
		return false;
	}
	if (count == 1)
		return put_off(app, ends, &err);
	return settle(app, ends, half) && settle(app, ends + half, count - half);
}

int64_t processing_pass(void *ctx)
{
	const struct app *app = ctx;
	autoptr(arena) a = arena_new();
	struct delivery_end ends[BATCH];
	struct delivery *list = NULL;
	size_t count = 0;
	struct err err = {0};

	int r = deliveries_db_take(&app->db, BATCH, a, &list, &count, &err);
	outage_note(app->outage, r, &err, "deliveries");
	if (r < 0)
		return IDLE_NS;
	for (size_t i = 0; i < count; i++)
		ends[i] = decide(app, &list[i], a);
	return count > 0 && settle(app, ends, count) ? 0 : IDLE_NS;
}
