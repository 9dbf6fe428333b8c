#include "cli/attach/input.h"

#include <errno.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/tty.h"

enum { READ_STEP = 32 * 1024 };

struct input {
	struct loop *loop;
	const struct input_ops *ops;
	void *ctx;
	bool is_file;		    /* always readable, and nothing for a loop */
	struct loop_source *source; /* NULL: a file; or all its writers were gone, and what they left is read */
	bool ended;
};

static void on_input(void *ctx, unsigned events);

bool input_is_there(void)
{
	struct stat st;

	if (fstat(STDIN_FILENO, &st) < 0)
		return false;
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) /* /dev/null */
		return false;
	return isatty(STDIN_FILENO) != 1 || tty_in_foreground(STDIN_FILENO);
}

static size_t room(const struct input *in)
{
	return in->ended ? 0 : in->ops->room(in->ctx);
}

static int watch(struct input *in, unsigned events, struct err *err)
{
	return loop_add_fd(in->loop, STDIN_FILENO, events, LOOP_NORMAL, on_input, in, &in->source, err);
}

/* Whether a read would, whatever was said before: a FIFO that all its writers had left may be opened anew. */
static bool would_block(const struct input *in)
{
	struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};

	return !in->is_file && poll(&fd, 1, 0) <= 0;
}

static void watch_again(struct input *in)
{
	struct err err = {0};

	if (in->source == NULL && watch(in, LOOP_READ, &err) < 0)
		in->ops->failed(in->ctx, &err);
}

/* One read, which does not block. Gives whether there may be more. */
static bool read_some(struct input *in)
{
	char bytes[READ_STEP];
	size_t cap = room(in);

	if (cap == 0)
		return false;
	if (would_block(in)) {
		watch_again(in);
		return false;
	}
	ssize_t len = read(STDIN_FILENO, bytes, cap < sizeof(bytes) ? cap : sizeof(bytes));
	if (len < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (len <= 0) {
		in->ended = true;
		loop_source_free(TAKE(in->source));
	}
	in->ops->bytes(in->ctx, (struct str){bytes, len > 0 ? (size_t)len : 0});
	return len > 0;
}

void input_pump(struct input *in)
{
	if (in == NULL)
		return;
	if (in->source != NULL)
		loop_fd_set_events(in->source, room(in) > 0 ? LOOP_READ : 0);
	else
		while (read_some(in))
			;
}

static void on_input(void *ctx, unsigned events)
{
	struct input *in = ctx;

	/* A pipe's end is said again and again, wanted or not: it waits behind what is still in it. */
	if (room(in) == 0 && (events & LOOP_HANGUP) != 0)
		loop_source_free(TAKE(in->source));
	else
		(void)read_some(in);
	input_pump(in);
}

int input_new(struct loop *loop, const struct input_ops *ops, void *ctx, struct input **ret, struct err *err)
{
	autoptr(input) in = xcalloc(1, sizeof(*in));
	struct stat st;
	int rc = 0;

	in->loop = loop;
	in->ops = ops;
	in->ctx = ctx;
	in->is_file = fstat(STDIN_FILENO, &st) < 0 || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode);
	if (!in->is_file)
		rc = watch(in, 0, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(in);
	return 0;
}

void input_free(struct input *in)
{
	if (in == NULL)
		return;
	loop_source_free(in->source);
	free(in);
}
