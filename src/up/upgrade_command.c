/*
 * `nimbus upgrade`: asks the running `up` to let the program that lies in its place take over.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/endpoints.h"
#include "role/role.h"
#include "up/up.h"
#include "up/upgrade.h"

enum { ENDPOINTS_MAX = 64 * 1024, LOOK_MS = 20, TIMEOUT_S = 900 };

struct options {
	struct role_flags role;
	int64_t timeout_ns;
};

static int find_up(const char *data_dir, struct arena *arena, pid_t *ret, struct err *err)
{
	autofree char *path = xasprintf("%s/" ENDPOINTS_FILE, data_dir);
	autovar(buf) text = {0};
	struct endpoints endpoints = {0};

	if (access(path, F_OK) != 0)
		return err_set(err, ERR_UNAVAILABLE, "no 'nimbus up' runs in %s", data_dir);
	int rc = file_read(AT_FDCWD, path, ENDPOINTS_MAX, &text, err);
	if (rc == 0)
		rc = endpoints_decode(buf_str(&text), arena, &endpoints, err);
	if (rc == 0)
		*ret = (pid_t)endpoints.pid;
	return rc;
}

/* Until the number is another one; it is `up` that counts. */
static int await_result(const char *data_dir, int up_fd, int64_t before, int64_t deadline_ns, struct arena *arena,
			struct upgrade_result *ret, struct err *err)
{
	for (;;) {
		int rc = upgrade_last(data_dir, arena, ret, err);
		if (rc < 0 || ret->number != before)
			return rc;
		/* A pidfd, readable when the process has ended. */
		if (poll(&(struct pollfd){.fd = up_fd, .events = POLLIN}, 1, LOOK_MS) > 0)
			return err_set(err, ERR_UNAVAILABLE, "'nimbus up' has ended: its log says why");
		if (clock_monotonic_ns() >= deadline_ns)
			return err_set(err, ERR_TIMEOUT, "the upgrade has not ended in time; it goes on");
	}
}

static int upgrade(const struct options *options, struct role *role, struct arena *arena, struct upgrade_result *ret,
		   struct err *err)
{
	struct upgrade_result before = {0};
	pid_t pid = 0;

	int rc = find_up(role->data_dir, arena, &pid, err);
	if (rc == 0)
		rc = upgrade_last(role->data_dir, arena, &before, err);
	if (rc < 0)
		return rc;
	autoclose up_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (up_fd < 0 || syscall(SYS_pidfd_send_signal, up_fd, SIGUSR2, NULL, 0) != 0)
		return err_sys(err, "ask 'nimbus up' (process %d)", (int)pid);
	return await_result(role->data_dir, up_fd, before.number, clock_monotonic_ns() + options->timeout_ns, arena,
			    ret, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct options *options = call->options;
	autovar(role) role = {0};
	struct upgrade_result result = {0};

	int rc = role_open(&options->role, true, &role, err);
	if (rc == 0)
		rc = upgrade(options, &role, call->arena, &result, err);
	if (rc == -ERR_UNAVAILABLE)
		call->hint = "start it ('nimbus up'), or name its data directory: --data DIR";
	if (rc == -ERR_TIMEOUT)
		call->hint = "the log of 'nimbus up' says what it waits for, and how it ends";
	if (rc < 0)
		return rc;
	if (!result.ok) {
		call->hint =
			"what ran goes on; the log of 'nimbus up' has more. Put another program there, or mend what "
			"is named, and call this again";
		return err_set(err, ERR_CONFLICT, "not upgraded: %s", result.message);
	}
	(void)printf("upgraded to %s: every role was replaced, jobs went on\n", result.message);
	return 0;
}

static const struct command_option options[] = {
	{"timeout", 0, OPTION_SECONDS, offsetof(struct options, timeout_ns), .value = "SECONDS",
	 .help = "How long to wait for the end of it.", .otherwise = TIMEOUT_S * NS_PER_S},
};

const struct command upgrade_command = {
	.path = "upgrade",
	.summary = "Replace the running system by the program that lies in its place now",
	.about =
		"Put the new program where the old one lies (mv, or your package manager), then call this. 'nimbus "
		"up'\n"
		"looks whether the new one is whole, starts, accepts the configuration and knows the databases, "
		"becomes\n"
		"it, and replaces one role after the other. Where one does not come up, or hangs (nothing from it for\n"
		"NIMBUS_UPGRADE_PATIENCE, 120 s), the old program takes its place back, and this says which role it "
		"was\n"
		"and ends with exit 1. No connection is refused meanwhile, and jobs that run go on; so do their logs. "
		"The\n"
		"same without a new program restarts every role. SIGUSR2 to 'nimbus up' asks for it too.\n",
	.examples = "  nimbus upgrade\n"
		    "  install -m 755 nimbus.new /usr/bin/nimbus && nimbus upgrade\n"
		    "  nimbus upgrade --data ~/nimbus --timeout 300\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct options),
	.run = run,
};
