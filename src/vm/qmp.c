#include "vm/qmp.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/file.h"

enum { READ_SIZE = 4096 };

void qmp_init(struct qmp *q, int fd)
{
	*q = (struct qmp){.fd = fd};
}

void qmp_fini(struct qmp *q)
{
	fd_close(&q->fd);
	buf_fini(&q->in);
}

static ssize_t send_with_fd(int socket, struct str line, int fd)
{
	struct iovec bytes = {.iov_base = (void *)(uintptr_t)line.data, .iov_len = line.len};
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};

	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int qmp_send(struct qmp *q, const char *command, struct js *arguments, struct err *err)
{
	return qmp_send_fd(q, command, arguments, -1, err);
}

int qmp_send_fd(struct qmp *q, const char *command, struct js *arguments, int fd, struct err *err)
{
	autovar(buf) line = {0};

	qmp_command_encode(command, arguments, &line);
	ssize_t sent = send_with_fd(q->fd, buf_str(&line), fd);
	if (sent == (ssize_t)line.len)
		return 0;
	return sent < 0 && errno != EAGAIN ? err_sys(err, "send '%s' to QEMU", command)
					   : err_set(err, ERR_UNAVAILABLE, "QEMU does not take '%s'", command);
}

int qmp_receive(struct qmp *q, struct err *err)
{
	ssize_t got = recv(q->fd, buf_reserve(&q->in, READ_SIZE), READ_SIZE, MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0)
		return err_set(err, ERR_UNAVAILABLE, "QEMU is gone");
	q->in.len += (size_t)got;
	return 0;
}

int qmp_next(struct qmp *q, struct qmp_message *ret, struct err *err)
{
	struct str unseen = {q->in.data + q->scanned, q->in.len - q->scanned};
	ptrdiff_t at = unseen.len > 0 ? str_find(unseen, '\n') : -1;

	if (at < 0) {
		q->scanned = q->in.len;
		return q->in.len <= QMP_LINE_MAX ? 0 : err_set(err, ERR_TOO_LARGE, "QMP: a line without end");
	}
	size_t len = q->scanned + (size_t)at;
	int rc = qmp_message_decode(str_trim((struct str){q->in.data, len}), ret, err);
	buf_consume(&q->in, len + 1);
	q->scanned = 0;
	return rc < 0 ? rc : QMP_MESSAGE;
}

static int wait_readable(int fd, int64_t deadline_ns, struct err *err)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int64_t left_ms = (deadline_ns - clock_monotonic_ns() + NS_PER_MS - 1) / NS_PER_MS;

	if (left_ms <= 0)
		return err_set(err, ERR_TIMEOUT, "QEMU does not answer");
	if (poll(&p, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms) < 0 && errno != EINTR)
		return err_sys(err, "wait for QEMU");
	return 0;
}

int qmp_answer(struct qmp *q, int64_t deadline_ns, struct qmp_message *ret, struct err *err)
{
	for (;;) {
		autovar(qmp_message) m = {.text = ""};
		int rc = qmp_next(q, &m, err);
		if (rc == 0)
			rc = wait_readable(q->fd, deadline_ns, err);
		if (rc == 0)
			rc = qmp_receive(q, err);
		if (rc < 0)
			return rc;
		if (rc == QMP_MESSAGE && m.type == QMP_FAILED)
			return err_set(err, ERR_UNAVAILABLE, "%.200s", m.text);
		if (rc == QMP_MESSAGE && m.type == QMP_DONE) {
			*ret = m;
			m.tree = NULL;
			return 0;
		}
	}
}

int qmp_call(struct qmp *q, const char *command, struct js *arguments, int64_t deadline_ns, struct qmp_message *ret,
	     struct err *err)
{
	int rc = qmp_send(q, command, arguments, err);

	if (rc < 0)
		return rc;
	rc = qmp_answer(q, deadline_ns, ret, err);
	return rc < 0 ? err_wrap(err, "QEMU: %s", command) : 0;
}
