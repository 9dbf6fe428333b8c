#include "cli/full_screen.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/file.h"

/* exit() knows no context. */
static struct {
	bool shown;
	bool keys;
	struct termios before;
} state;

/* The other screen, no cursor, and what is wider than the screen is cut by it. */
static const char enter[] = "\x1b[?1049h\x1b[?25l\x1b[?7l";
static const char leave[] = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/* No echo, no waiting for a line; Ctrl-C still interrupts, Ctrl-Z would leave a stopped page behind. */
static int take_keys(struct err *err)
{
	if (isatty(STDIN_FILENO) != 1)
		return 0;
	if (tcgetattr(STDIN_FILENO, &state.before) != 0)
		return err_sys(err, "read the terminal's settings");
	struct termios raw = state.before;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	raw.c_cc[VSUSP] = _POSIX_VDISABLE;
	if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) != 0)
		return err_sys(err, "set the terminal");
	state.keys = true;
	return 0;
}

int full_screen_begin(struct err *err)
{
	static bool registered;

	if (!registered && atexit(full_screen_end) != 0)
		return err_sys(err, "atexit");
	registered = true;
	int rc = take_keys(err);
	if (rc < 0)
		return rc;
	state.shown = true;
	return file_write_fd(STDOUT_FILENO, str_c(enter), err);
}

void full_screen_end(void)
{
	if (state.shown)
		(void)!file_write_fd(STDOUT_FILENO, str_c(leave), NULL);
	if (state.keys)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &state.before);
	state.shown = state.keys = false;
}

size_t full_screen_rows(void)
{
	struct winsize size = {0};

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

int full_screen_draw(const struct buf *page, struct err *err)
{
	autovar(buf) out = {0};
	struct str rest = buf_str(page);
	size_t rows = full_screen_rows();

	if (str_ends_with(rest, STR("\n")))
		rest.len--;
	buf_puts(&out, "\x1b[H");
	for (size_t row = 0; row < rows && rest.data != NULL; row++) {
		struct str line = str_cut(&rest, '\n');
		buf_printf(&out, "%s%.*s\x1b[K", row > 0 ? "\r\n" : "", STR_ARG(line));
	}
	buf_puts(&out, "\x1b[J");
	return file_write_fd(STDOUT_FILENO, buf_str(&out), err);
}
