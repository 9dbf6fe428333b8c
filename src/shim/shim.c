#include "shim/shim.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "proto/shim_msg.h"
#include "shim/harden.h"
#include "shim/life.h"

/* A person who types the command has not these descriptors. */
static bool was_started_by_an_agent(void)
{
	struct stat dir;
	int type = 0;
	socklen_t len = sizeof(type);

	return fstat(SHIM_FD_VMDIR, &dir) == 0 && S_ISDIR(dir.st_mode) &&
	       getsockopt(SHIM_FD_AGENT, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET;
}

static int prepare(struct err *err)
{
	if (fcntl(SHIM_FD_VMDIR, F_SETFD, FD_CLOEXEC) != 0 || fcntl(SHIM_FD_AGENT, F_SETFD, FD_CLOEXEC) != 0 ||
	    fcntl(SHIM_FD_AGENT, F_SETFL, O_NONBLOCK) != 0)
		return err_sys(err, "prepare the shim's descriptors");
	/* A peer that is gone is an error of the call. */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)umask(077);
	return harden_self(err);
}

static int run(struct err *err)
{
	autoptr(loop) loop = NULL;
	autoptr(life) life = NULL;

	int rc = prepare(err);
	if (rc == 0)
		rc = loop_new(&loop, err);
	if (rc < 0)
		return rc;
	const struct life_opts opts = {.loop = loop,
				       .dir_fd = SHIM_FD_VMDIR,
				       .agent_fd = SHIM_FD_AGENT,
				       .driver = vm_driver_by_name(STR("qemu"))};
	rc = life_new(&opts, &life, err);
	return rc == 0 ? loop_run(loop, err) : rc;
}

static int run_command(struct command_call *call, struct err *err)
{
	const char *wanted = getenv(SHIM_LOG_LEVEL_VARIABLE);
	enum log_level level = LOG_LEVEL_INFO;

	(void)call;
	log_set_role("shim");
	if (wanted != NULL && log_level_parse(str_c(wanted), &level, err) == 0)
		log_set_level(level);
	if (!was_started_by_an_agent())
		return err_set(err, ERR_INVALID, "nimbus shim is started by the host agent only");
	int rc = run(err);
	if (rc < 0)
		log_error("the shim failed", F("error", err));
	return rc;
}

const struct command shim_command = {
	.path = "shim",
	.summary = "Own one VM",
	.hidden = true,
	.run = run_command,
};
