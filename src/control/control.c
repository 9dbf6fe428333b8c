#include "control/control.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/app.h"
#include "role/role.h"
#include "role/serve.h"

/* Before any thread starts: all of them leave these signals to this one. */
static sigset_t block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return set;
}

/* The one that ends it; SIGHUP has the role read again what it may. */
static void wait_for_end(const sigset_t *set, struct role *role)
{
	for (;;) {
		int number = sigwaitinfo(set, NULL);
		if (number == SIGHUP)
			role_reload(role);
		else if (number >= 0 || errno != EINTR)
			return;
	}
}

/* While it starts there is nothing to finish, so any of them ends it. */
static bool pause_unless_ended(void *ctx, int64_t pause_ns)
{
	const sigset_t *signals = ctx;
	struct timespec pause = {.tv_sec = pause_ns / NS_PER_S, .tv_nsec = pause_ns % NS_PER_S};
	int number = sigtimedwait(signals, NULL, &pause);

	return number < 0 || number == SIGHUP;
}

static int serve(const struct control_settings *settings, struct role *role, const sigset_t *signals, struct err *err)
{
	autovar(role_serving) serving = {0};
	sigset_t set = *signals;
	const struct app_opts opts = {
		.settings = settings,
		.common = &role->common,
		.serving = &serving,
		.data_dir = role->data_dir,
		.role = role,
		.pause = pause_unless_ended,
		.ctx = &set,
	};
	struct app *app = NULL;
	int r = role_serving_init(role, "control-plane", &serving, err);

	if (r == 0)
		r = app_start(&opts, &app, err);
	if (r != 0)
		return r < 0 ? r : 0;
	role_on_reload(role, webhook_secrets_reload, app->webhook_secrets);
	log_info("control plane ready", F("address", role->common.listen.items[0]),
		 F("port", http_server_port(app->server)), F("version", NIMBUS_VERSION));
	wait_for_end(signals, role);
	log_info("control plane stops: it finishes what it has begun");
	/* A second signal ends it at once: nothing is lost by that, it only cuts answers short. */
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	pthread_sigmask(SIG_UNBLOCK, signals, NULL);
	app_stop(app, role->common.drain);
	log_info("control plane stopped");
	return 0;
}

static int run(struct command_call *call, struct err *err)
{
	const struct role_flags *flags = call->options;
	struct control_settings settings = {0};
	autovar(role) role = {0};
	sigset_t signals = block_signals();
	int r = role_start(flags, &control_config, &settings, &role, err);

	if (r < 0)
		return r;
	r = serve(&settings, &role, &signals, err);
	config_unload(&control_config, &settings);
	return r;
}

const struct command control_command = {
	.path = "control-plane",
	.summary = "Serve webhooks, jobs, leases and agents",
	.about = "Takes webhooks and jobs, leases them to host agents, keeps what becomes of them.\n",
	.examples = "  nimbus control-plane --env-file /etc/nimbus/nimbus.env\n"
		    "  NIMBUS_DATABASE_URL=postgresql://nimbus@db/nimbus nimbus control-plane\n"
		    "  nimbus config check control-plane && nimbus control-plane\n",
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct role_flags),
	.run = run,
};
