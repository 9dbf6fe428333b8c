#include "control/processor.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/queue.h"
#include "control/control_metrics.h"
#include "control/db/deliveries_db.h"
#include "control/db/jobs_db.h"
#include "control/handlers.h"
#include "model/limits.h"
#include "proto/github_webhook.h"

enum { BATCH = 64, HELPERS = 4 };
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

static int fold(struct app *app, const struct delivery *d, const struct github_workflow_job *event,
		const struct label_set *labels, struct arena *a, struct err *err)
{
	static const char *const argv[] = {"sh", "-c", dry_run_script};
	const char **own_argv = arena_calloc(a, ARRAY_LEN(argv), sizeof(*own_argv));
	struct job job;

	memcpy(own_argv, argv, sizeof(argv));
	struct job_spec spec = {
		.org_id = event->org_id,
		.name = event->name,
		.image = "demo",
		.argv = {own_argv, ARRAY_LEN(argv)},
		.env = dry_run_env(event, a),
		.labels = *labels,
		.vcpus = JOB_VCPUS_DEFAULT,
		.memory_mb = JOB_MEMORY_MB_DEFAULT,
		.disk_mb = JOB_DISK_MB_DEFAULT,
		.timeout_s = JOB_TIMEOUT_S_DEFAULT,
		.max_attempts = app->settings->max_attempts,
	};
	struct github_fold f = {
		.event = event,
		.run_as = &spec,
		.leasable = app->settings->github_dry_run,
		.delivery_id = d->id,
	};
	int r = jobs_db_github(&app->db, &f, a, &job, err);

	return r < 0 ? r : 0;
}

/* *ret_why stays NULL for a delivery that is for us; otherwise it says why it becomes no job. */
static int process(struct app *app, const struct delivery *d, struct arena *a, const char **ret_why, struct err *err)
{
	struct github_workflow_job event;
	struct label_set labels;
	struct err bad = {0};

	if (strcmp(d->event, "ping") == 0)
		*ret_why = "ping";
	else if (strcmp(d->event, "workflow_job") != 0)
		*ret_why = arena_printf(a, "event '%.100s' is not for us", d->event);
	else if (github_workflow_job_parse(d->body, a, &event, &bad) < 0 ||
		 label_set_make(event.labels.items, event.labels.count, a, &labels, &bad) < 0)
		*ret_why = arena_strdup(a, bad.msg);
	else if (event.action == GITHUB_ACTION_OTHER)
		*ret_why = arena_printf(a, "action '%.100s' is not for us",
					event.action_text != NULL ? event.action_text : "");
	else if (event.org_id == 0)
		*ret_why = "workflow_job payload: no repository, so no owner";
	else if (!label_set_has(&labels, "nimbus"))
		*ret_why = "no nimbus label";
	else
		return fold(app, d, &event, &labels, a, err);
	metrics_inc(app->metrics, M_WEBHOOKS_REFUSED);
	return deliveries_db_refuse(&app->db, d->id, *ret_why, err);
}

/* False: the database does not work, so trying the next one now is no use. */
static bool process_one(struct app *app, const struct delivery *d)
{
	autoptr(arena) a = arena_new();
	const char *why = NULL;
	struct err err = {0};
	struct err second = {0};

	if (process(app, d, a, &why, &err) == 0) {
		log_info("delivery processed", F("delivery", d->id), F("event", d->event),
			 F("refused", why != NULL ? why : ""));
		return true;
	}
	log_warn("delivery not processed: it is tried again", F("delivery", d->id), F("tries", d->tries + 1),
		 F("error", &err));
	return deliveries_db_retry(&app->db, d->id, err.msg, &second) == 0;
}

struct processor {
	struct app *app;
	struct worker *dispatcher;
	struct queue *todo; /* const struct delivery * */
	struct queue *done; /* the same, or `stuck` */
	pthread_t helpers[HELPERS];
	size_t started;
};

/* What a helper gives back instead of a delivery with which it got nowhere. */
static struct delivery stuck;

static void *help(void *arg)
{
	struct processor *p = arg;
	struct delivery *d;

	while ((d = queue_pop(p->todo, INT64_MAX)) != NULL) {
		bool pushed = queue_push(p->done, process_one(p->app, d) ? d : &stuck, INT64_MAX);

		assert(pushed);
	}
	return NULL;
}

/* Side by side, so that their transactions share commits. False: the database does not work. */
static bool process_all(struct processor *p, struct delivery *list, size_t count)
{
	bool good = true;

	if (count == 1)
		return process_one(p->app, list);
	for (size_t i = 0; i < count; i++) {
		bool pushed = queue_push(p->todo, &list[i], INT64_MAX);

		assert(pushed);
	}
	for (size_t i = 0; i < count; i++)
		good = queue_pop(p->done, INT64_MAX) != &stuck && good;
	return good;
}

static int64_t pass(void *ctx)
{
	struct processor *p = ctx;
	autoptr(arena) a = arena_new();
	struct delivery *list = NULL;
	size_t count = 0;
	struct err err = {0};

	if (deliveries_db_take(&p->app->db, BATCH, a, &list, &count, &err) < 0) {
		log_error("deliveries wait: they cannot be read", F("error", &err));
		return IDLE_NS;
	}
	return count > 0 && process_all(p, list, count) ? 0 : IDLE_NS;
}

struct processor *processor_new(struct app *app)
{
	struct processor *p = xcalloc(1, sizeof(*p));

	p->app = app;
	p->dispatcher = worker_new(pass, p);
	p->todo = queue_new(BATCH);
	p->done = queue_new(BATCH);
	return p;
}

int processor_start(struct processor *p, struct err *err)
{
	for (; p->started < HELPERS; p->started++) {
		int failed = pthread_create(&p->helpers[p->started], NULL, help, p);

		if (failed != 0)
			return err_set(err, ERR_INTERNAL, "start a thread: error %d", failed);
	}
	return worker_start(p->dispatcher, err);
}

void processor_wake(struct processor *p)
{
	worker_wake(p->dispatcher);
}

void processor_free(struct processor *p)
{
	if (p == NULL)
		return;
	worker_free(p->dispatcher);
	queue_close(p->todo);
	for (size_t i = 0; i < p->started; i++)
		pthread_join(p->helpers[i], NULL);
	queue_free(p->todo);
	queue_free(p->done);
	free(p);
}
