#include "control/control.h"

#include <signal.h>

#include "base/log.h"
#include "control/app.h"
#include "role/role.h"
#include "role/role_signals.h"
#include "role/serve.h"

/* While it starts there is nothing to finish, so any of them ends it. */
static bool pause_unless_ended(void *ctx, int64_t pause_ns)
{
	return role_signals_pause(ctx, pause_ns);
}

static int serve(const struct control_settings *settings, struct role *role, struct role_signals *signals,
		 struct err *err)
{
	autovar(role_serving) serving = {0};
	const struct app_opts opts = {
		.settings = settings,
		.common = &role->common,
		.serving = &serving,
		.data_dir = role->data_dir,
		.role = role,
		.pause = pause_unless_ended,
		.ctx = signals,
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
	(void)role_signals_wait(signals, role, -1);
	log_info("control plane stops: it finishes what it has begun");
	/* A second signal ends it at once: nothing is lost by that, it only cuts answers short. */
	role_signals_release(signals);
	app_stop(app, role->common.drain);
	log_info("control plane stopped");
	return 0;
}

static int run(struct command_call *call, struct err *err)
{
	const struct role_flags *flags = call->options;
	struct control_settings settings = {0};
	autovar(role) role = {0};
	autovar(role_signals) signals = {-1};
	int r = role_signals_init(&signals, err);

	(void)signal(SIGPIPE, SIG_IGN);
	if (r == 0)
		r = role_start(flags, &control_config, &settings, &role, err);
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
