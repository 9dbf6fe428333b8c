#include "logs/logs.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "logs/app.h"
#include "role/role.h"
#include "role/serve.h"

/* What ends the role: a signal, or a store that failed. */
struct stop {
	int signal_fd;
	int failed_fd;
};

static void stop_fini(struct stop *s)
{
	fd_close(&s->signal_fd);
	fd_close(&s->failed_fd);
}
AUTOVAR_DEFINE(stop)

/* Before any thread starts, so that no thread but this one is interrupted. The second SIGTERM then finds the signal as
 * it was, and ends the process. */
static int stop_init(struct stop *s, struct err *err)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0)
		return err_set(err, ERR_INTERNAL, "block signals");
	s->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	s->failed_fd = eventfd(0, EFD_CLOEXEC);
	return s->signal_fd < 0 || s->failed_fd < 0 ? err_sys(err, "watch for signals") : 0;
}

static void on_failed(void *ctx)
{
	const struct stop *s = ctx;

	(void)eventfd_write(s->failed_fd, 1);
}

/* Takes the pending signal, so that unblocking does not act on it. */
static int take_signal(const struct stop *s)
{
	struct signalfd_siginfo info = {0};

	return read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

/* Gives whether it is time to end well. SIGHUP has the role read again what it may. */
static bool wait_for_end(const struct stop *s, struct role *role)
{
	struct pollfd fds[] = {{s->signal_fd, POLLIN, 0}, {s->failed_fd, POLLIN, 0}};

	for (;;) {
		int ready = poll(fds, ARRAY_LEN(fds), -1);
		if (ready < 0 && errno == EINTR)
			continue;
		if (ready < 0 || fds[1].revents != 0)
			return fds[1].revents == 0;
		if (take_signal(s) != SIGHUP)
			return true;
		role_reload(role);
	}
}

static void let_signals_end_it(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}

static int serve(struct role *role, const struct logging_settings *settings, struct err *err)
{
	autovar(stop) stop = {-1, -1};
	autovar(role_serving) serving = {0};
	struct app *app = NULL;
	const struct app_opts opts = {
		.settings = settings,
		.common = &role->common,
		.serving = &serving,
		.data_dir = role->data_dir,
		.role = role,
		.failed = on_failed,
		.ctx = &stop,
	};

	int rc = role_serving_init(role, "logging-pipeline", &serving, err);
	if (rc == 0)
		rc = stop_init(&stop, err);
	if (rc == 0)
		rc = logs_app_start(&opts, &app, err);
	if (rc < 0)
		return rc;
	assert(app != NULL);
	log_info("ready", F("address", role->common.listen.items[0]), F("port", http_server_port(app->server)));
	bool well = wait_for_end(&stop, role);
	if (well) {
		let_signals_end_it();
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
