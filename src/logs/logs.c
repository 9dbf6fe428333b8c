#include "logs/logs.h"

#include <assert.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "logs/app.h"
#include "role/role.h"
#include "role/role_signals.h"
#include "role/serve.h"

/* The store failed: the role ends without taking more. */
static void on_failed(void *ctx)
{
	const int *failed_fd = ctx;

	(void)eventfd_write(*failed_fd, 1);
}

static int serve(struct role *role, const struct logging_settings *settings, struct err *err)
{
	autovar(role_signals) signals = {-1};
	autoclose failed_fd = eventfd(0, EFD_CLOEXEC);
	autovar(role_serving) serving = {0};
	struct app *app = NULL;
	const struct app_opts opts = {
		.settings = settings,
		.common = &role->common,
		.serving = &serving,
		.data_dir = role->data_dir,
		.role = role,
		.failed = on_failed,
		.ctx = &failed_fd,
	};

	if (failed_fd < 0)
		return err_sys(err, "make an event");
	int rc = role_serving_init(role, "logging-pipeline", &serving, err);
	if (rc == 0)
		rc = role_signals_init(&signals, err);
	if (rc == 0)
		rc = logs_app_start(&opts, &app, err);
	if (rc < 0)
		return rc;
	assert(app != NULL);
	log_info("ready", F("address", role->common.listen.items[0]), F("port", http_server_port(app->server)));
	bool well = role_signals_wait(&signals, role, failed_fd);
	if (well) {
		role_signals_release(&signals);
		log_info("stopping: a second signal ends at once");
	}
	rc = logs_app_stop(app, clock_monotonic_ns() + role->common.drain, err);
	if (rc == 0)
		log_info("stopped");
	return rc;
}

static int run(struct command_call *call, struct err *err)
{
	autovar(role) role = {0};
	struct logging_settings settings = {0};

	int rc = role_start(call->options, &logging_config, &settings, &role, err);
	if (rc < 0)
		return rc;
	rc = serve(&role, &settings, err);
	config_unload(&logging_config, &settings);
	return rc;
}

const struct command logs_command = {
	.path = "logging-pipeline",
	.summary = "Take, keep and show the logs of jobs",
	.examples = "  nimbus logging-pipeline --env-file /etc/nimbus/nimbus.env\n"
		    "  NIMBUS_LOG_STORAGE_PATH=/srv/logs nimbus logging-pipeline\n"
		    "  nimbus config check logging-pipeline && nimbus logging-pipeline\n",
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct role_flags),
	.run = run,
};
