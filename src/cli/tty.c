#include "cli/tty.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* A signal's handler must find them: the one exception from "no global state". `raw` is set when both others are. */
static struct termios before;
static int terminal = -1;
static volatile sig_atomic_t raw;

/* Also from handlers: tcsetattr() is safe there. A terminal that is gone, or not ours now, is left alone. */
void tty_restore(void)
{
	if (raw == 0)
		return;
	raw = 0;
	int saved = errno;
	(void)tcsetattr(terminal, TCSADRAIN, &before);
	errno = saved;
}

static void die_restored(int number)
{
	tty_restore();
	(void)raise(number); /* SA_RESETHAND: this time for good */
}

static void restore_whatever_happens(void)
{
	static const int deadly[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGXCPU};
	const struct sigaction action = {.sa_handler = die_restored, .sa_flags = (int)SA_RESETHAND};

	for (size_t i = 0; i < ARRAY_LEN(deadly); i++)
		(void)sigaction(deadly[i], &action, NULL);
	(void)atexit(tty_restore);
}

/* In the background, tcsetattr() would stop us. */
static int set_raw(struct err *err)
{
	struct termios t = before;

	cfmakeraw(&t);
	if (tcsetattr(terminal, TCSADRAIN, &t) < 0)
		return err_sys(err, "set the terminal raw");
	raw = 1;
	return 0;
}

int tty_raw(int fd, struct err *err)
{
	if (terminal < 0) {
		if (tcgetattr(fd, &before) < 0)
			return err_sys(err, "read the terminal's settings");
		terminal = fd;
		restore_whatever_happens();
	}
	return set_raw(err);
}

void tty_size(int fd, uint16_t *ret_rows, uint16_t *ret_cols)
{
	struct winsize w = {0};

	(void)ioctl(fd, TIOCGWINSZ, &w);
	*ret_rows = w.ws_row > 0 ? w.ws_row : 24;
	*ret_cols = w.ws_col > 0 ? w.ws_col : 80;
}

bool tty_in_foreground(int fd)
{
	return tcgetpgrp(fd) == getpgrp();
}
