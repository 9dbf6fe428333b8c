#include "role/role_signals.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "role/role.h"

int role_signals_init(struct role_signals *s, struct err *err)
{
	sigset_t signals;

	s->fd = -1;
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0)
		return err_set(err, ERR_INTERNAL, "block signals");
	s->fd = signalfd(-1, &signals, SFD_CLOEXEC);
	return s->fd < 0 ? err_sys(err, "watch for signals") : 0;
}

void role_signals_fini(struct role_signals *s)
{
	fd_close(&s->fd);
}

/* Takes it, so that unblocking does not act on it. */
static int take(const struct role_signals *s)
{
	struct signalfd_siginfo info = {0};

	return read(s->fd, &info, sizeof(info)) == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

bool role_signals_pause(struct role_signals *s, int64_t ns)
{
	struct pollfd wait = {s->fd, POLLIN, 0};

	return poll(&wait, 1, (int)(ns / NS_PER_MS)) <= 0 || take(s) == SIGHUP;
}

bool role_signals_wait(struct role_signals *s, struct role *role, int other_fd)
{
	struct pollfd fds[] = {{s->fd, POLLIN, 0}, {other_fd, POLLIN, 0}};

	for (;;) {
		int ready = poll(fds, ARRAY_LEN(fds), -1);
		if (ready < 0 && errno == EINTR)
			continue;
		if (ready < 0 || fds[1].revents != 0)
			return fds[1].revents == 0;
		if (take(s) != SIGHUP)
			return true;
		role_reload(role);
	}
}

void role_signals_release(struct role_signals *s)
{
	sigset_t signals;

	(void)s;
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}
