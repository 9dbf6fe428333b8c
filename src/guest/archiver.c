#include "guest/archiver.h"

#include <fcntl.h>
#include <unistd.h>

#include "guest/pack.h"
#include "guest/task.h"
#include "guest/unpack.h"
#include "guest/window.h"

/* What a child has as its standard input, output and error; all of it is closed on exec, and there is none. */
enum { TO, FROM, REPORT, PIPES };
/* And the window. */
enum { WINDOW = PIPES, KEPT };

struct ends {
	int pipes[PIPES][2]; /* to read from, to write to */
};

/* One of the child's two kinds of work. */
struct work {
	const char *folder; /* to unpack into; NULL: it packs */
	const struct guest_pack *pack;
	int window_fd;
};

static int make_ends(struct ends *e, struct err *err)
{
	*e = (struct ends){{{-1, -1}, {-1, -1}, {-1, -1}}};
	for (size_t i = 0; i < PIPES; i++) {
		if (pipe2(e->pipes[i], O_CLOEXEC) != 0)
			return err_sys(err, "make a pipe");
	}
	return 0;
}

static void close_ends(const struct ends *e)
{
	for (size_t i = 0; i < PIPES; i++) {
		for (size_t k = 0; k < 2; k++) {
			if (e->pipes[i][k] >= 0)
				(void)close(e->pipes[i][k]);
		}
	}
}

/* The child's end of each pipe is the other one of ours. */
static int child_end(const struct ends *e, size_t i)
{
	return e->pipes[i][i == TO ? 0 : 1];
}

static int our_end(const struct ends *e, size_t i)
{
	return e->pipes[i][i == TO ? 1 : 0];
}

/* Of PID 1's descriptors only these stay; it has its own 0 to 2. */
static int enter_child(const struct ends *e, int window_fd, struct err *err)
{
	int window = fcntl(window_fd, F_DUPFD, KEPT);

	for (size_t i = 0; i < PIPES; i++) {
		if (dup2(child_end(e, i), (int)i) < 0)
			_exit(1);
	}
	if (window < 0 || dup2(window, WINDOW) < 0)
		return err_set(err, ERR_UNAVAILABLE, "this VM has no window for archives");
	task_be_ordinary(KEPT);
	return 0;
}

static int work_on(const struct work *work, struct err *err)
{
	struct window window;

	int rc = window_init(&window, WINDOW, TO, FROM, err);
	if (rc < 0)
		return rc;
	rc = work->folder != NULL ? unpack_stream(window_receive, &window, work->folder, err)
				  : pack_stream(work->pack, window_send, &window, err);
	window_fini(&window);
	return rc;
}

noreturn_fn static void be_child(const struct ends *e, const struct work *work)
{
	struct err err = {0};

	int rc = enter_child(e, work->window_fd, &err);
	if (rc == 0)
		rc = work_on(work, &err);
	ssize_t ignored = rc < 0 ? write(REPORT, err.msg, strlen(err.msg)) : 0;
	(void)ignored;
	_exit(rc < 0 ? 1 : 0);
}

static int keep_ours(const struct ends *e, pid_t pid, struct archiver *ret, struct err *err)
{
	for (size_t i = 0; i < PIPES; i++) {
		if (fcntl(our_end(e, i), F_SETFL, O_NONBLOCK) != 0)
			return err_sys(err, "set up a pipe");
	}
	for (size_t i = 0; i < PIPES; i++)
		(void)close(child_end(e, i));
	*ret = (struct archiver){
		.pid = pid, .to_fd = our_end(e, TO), .from_fd = our_end(e, FROM), .report_fd = our_end(e, REPORT)};
	return 0;
}

static int start(const struct work *work, struct archiver *ret, struct err *err)
{
	struct ends e;

	int rc = make_ends(&e, err);
	pid_t pid = rc == 0 ? fork() : -1;
	if (pid == 0)
		be_child(&e, work);
	if (rc == 0 && pid < 0)
		rc = err_sys(err, "fork");
	if (rc == 0)
		rc = keep_ours(&e, pid, ret, err);
	if (rc < 0)
		close_ends(&e);
	return rc;
}

int archiver_unpack(const char *folder, int window_fd, struct archiver *ret, struct err *err)
{
	return start(&(struct work){.folder = folder, .window_fd = window_fd}, ret, err);
}

int archiver_pack(const struct guest_pack *pack, int window_fd, struct archiver *ret, struct err *err)
{
	return start(&(struct work){.pack = pack, .window_fd = window_fd}, ret, err);
}
