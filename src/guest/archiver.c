#include "guest/archiver.h"

#include <fcntl.h>
#include <unistd.h>

#include "guest/pack.h"
#include "guest/task.h"
#include "guest/unpack.h"

enum { PIPE_SIZE = 256 * 1024 };

struct ends {
	int bytes[2]; /* to read from, to write to */
	int report[2];
};

static int make_ends(struct ends *e, struct err *err)
{
	*e = (struct ends){{-1, -1}, {-1, -1}};
	if (pipe2(e->bytes, O_CLOEXEC) != 0 || pipe2(e->report, O_CLOEXEC) != 0)
		return err_sys(err, "make a pipe");
	(void)fcntl(e->bytes[0], F_SETPIPE_SZ, PIPE_SIZE);
	return 0;
}

static void close_ends(const struct ends *e)
{
	for (int i = 0; i < 2; i++) {
		if (e->bytes[i] >= 0)
			(void)close(e->bytes[i]);
		if (e->report[i] >= 0)
			(void)close(e->report[i]);
	}
}

/* Descriptor 0 or 1 is the archive, 2 the report; no other stays. */
static void enter_child(const struct ends *e, int bytes_at)
{
	if (dup2(e->bytes[bytes_at], bytes_at) < 0 || dup2(e->report[1], STDERR_FILENO) < 0)
		_exit(1);
	task_be_ordinary();
}

noreturn_fn static void leave_child(int rc, const struct err *err)
{
	ssize_t ignored = rc < 0 ? write(STDERR_FILENO, err->msg, strlen(err->msg)) : 0;

	(void)ignored;
	_exit(rc < 0 ? 1 : 0);
}

static int keep_ours(const struct ends *e, int bytes_at, pid_t pid, struct archiver *ret, struct err *err)
{
	int ours = e->bytes[1 - bytes_at], report = e->report[0];

	if (fcntl(ours, F_SETFL, O_NONBLOCK) != 0 || fcntl(report, F_SETFL, O_NONBLOCK) != 0)
		return err_sys(err, "set up a pipe");
	(void)close(e->bytes[bytes_at]);
	(void)close(e->report[1]);
	*ret = (struct archiver){.pid = pid, .bytes_fd = ours, .report_fd = report};
	return 0;
}

int archiver_unpack(const char *folder, struct archiver *ret, struct err *err)
{
	struct ends e;

	int rc = make_ends(&e, err);
	pid_t pid = rc == 0 ? fork() : -1;
	if (pid == 0) {
		struct err why = {0};
		enter_child(&e, STDIN_FILENO);
		rc = unpack_stream(STDIN_FILENO, folder, &why);
		leave_child(rc, &why);
	}
	if (rc == 0 && pid < 0)
		rc = err_sys(err, "fork");
	if (rc == 0)
		rc = keep_ours(&e, STDIN_FILENO, pid, ret, err);
	if (rc < 0)
		close_ends(&e);
	return rc;
}

int archiver_pack(const struct guest_pack *pack, struct archiver *ret, struct err *err)
{
	struct ends e;

	int rc = make_ends(&e, err);
	pid_t pid = rc == 0 ? fork() : -1;
	if (pid == 0) {
		struct err why = {0};
		enter_child(&e, STDOUT_FILENO);
		rc = pack_stream(pack, STDOUT_FILENO, &why);
		leave_child(rc, &why);
	}
	if (rc == 0 && pid < 0)
		rc = err_sys(err, "fork");
	if (rc == 0)
		rc = keep_ours(&e, STDOUT_FILENO, pid, ret, err);
	if (rc < 0)
		close_ends(&e);
	return rc;
}
