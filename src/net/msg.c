#include "net/msg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"

void msg_fds_fini(struct msg_fds *f)
{
	for (size_t i = 0; i < f->count; i++)
		fd_close(&f->fds[i]);
	f->count = 0;
}

static int new_socket(int *ret_fd, struct err *err)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(err, "make a unix socket");
	*ret_fd = fd;
	return 0;
}

/* The folder by its descriptor: an address holds 108 bytes, paths have no such bound. */
static int address(int dirfd, const char *name, struct sockaddr_un *ret, struct err *err)
{
	ret->sun_family = AF_UNIX;
	int len = snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", dirfd, name);
	if (len < 0 || (size_t)len >= sizeof(ret->sun_path))
		return err_set(err, ERR_INVALID, "socket name '%s' is too long", name);
	return 0;
}

/* Only a socket is taken away: never another kind of file that happens to have the name. */
static int remove_left_over(int dirfd, const char *name, struct err *err)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : err_sys(err, "look at '%s'", name);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, ERR_CONFLICT, "'%s' exists and is no socket", name);
	if (unlinkat(dirfd, name, 0) != 0 && errno != ENOENT)
		return err_sys(err, "remove the old socket '%s'", name);
	return 0;
}

int msg_listen(int dirfd, const char *name, int *ret_fd, struct err *err)
{
	autoclose fd = -1;
	struct sockaddr_un addr = {0};

	int rc = address(dirfd, name, &addr, err);
	if (rc == 0)
		rc = remove_left_over(dirfd, name, err);
	if (rc == 0)
		rc = new_socket(&fd, err);
	if (rc < 0)
		return rc;
	/* The mode of a socket file is that of its inode: set before bind() makes the name. */
	if (fchmod(fd, 0600) != 0 || bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(fd, 16) != 0)
		return err_sys(err, "listen on socket '%s'", name);
	*ret_fd = fd_take(&fd);
	return 0;
}

int msg_peer(int fd, pid_t *ret_pid, uid_t *ret_uid, struct err *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return err_sys(err, "ask who is at the other end of a socket");
	*ret_pid = cred.pid;
	*ret_uid = cred.uid;
	return 0;
}

static int check_peer(int fd, struct err *err)
{
	pid_t pid = 0;
	uid_t uid = 0;

	int rc = msg_peer(fd, &pid, &uid, err);
	if (rc < 0)
		return rc;
	if (uid != 0 && uid != geteuid())
		return err_set(err, ERR_FORBIDDEN, "the other end of the socket belongs to uid %u (process %d)",
			       (unsigned)uid, (int)pid);
	return 0;
}

int msg_accept(int listener, int *ret_fd, struct err *err)
{
	autoclose fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return MSG_AGAIN;
	if (fd < 0)
		return err_sys(err, "accept a connection");
	int rc = check_peer(fd, err);
	if (rc < 0)
		return rc;
	*ret_fd = fd_take(&fd);
	return 0;
}

int msg_connect(int dirfd, const char *name, int *ret_fd, struct err *err)
{
	autoclose fd = -1;
	struct sockaddr_un addr = {0};

	int rc = address(dirfd, name, &addr, err);
	if (rc == 0)
		rc = new_socket(&fd, err);
	if (rc < 0)
		return rc;
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
		if (errno == ENOENT)
			return err_set(err, ERR_NOT_FOUND, "there is no socket '%s'", name);
		if (errno == ECONNREFUSED || errno == EAGAIN)
			return err_set(err, ERR_UNAVAILABLE, "nobody answers on socket '%s'", name);
		return err_sys(err, "connect to socket '%s'", name);
	}
	rc = check_peer(fd, err);
	if (rc < 0)
		return rc;
	*ret_fd = fd_take(&fd);
	return 0;
}

int msg_pair(int ret_fds[static 2], struct err *err)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) != 0)
		return err_sys(err, "make a pair of sockets");
	return 0;
}

/* Room for the one control message that we use. */
union control {
	char bytes[CMSG_SPACE(sizeof(int) * MSG_FDS_MAX)];
	struct cmsghdr align;
};

int msg_send(int fd, struct str message, const int *fds, size_t fd_count, struct err *err)
{
	union control control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)message.data, .iov_len = message.len};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (message.len == 0 || message.len > MSG_SIZE_MAX || fd_count > MSG_FDS_MAX)
		return err_set(err, ERR_TOO_LARGE, "a message of %zu bytes and %zu descriptors cannot be sent",
			       message.len, fd_count);
	if (fd_count > 0) {
		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * fd_count);
	}
	ssize_t sent;
	do
		sent = sendmsg(fd, &mh, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return 0;
	if (errno == EAGAIN)
		return MSG_AGAIN;
	if (errno == EPIPE || errno == ECONNRESET)
		return MSG_CLOSED;
	return err_sys(err, "send a message");
}

/* Every descriptor that came is collected, also from a message that is refused, so that none leaks. */
static void collect_fds(struct msghdr *mh, struct msg_fds *fds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c != NULL; c = CMSG_NXTHDR(mh, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count && fds->count < MSG_FDS_MAX; i++)
			memcpy(&fds->fds[fds->count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
}

int msg_recv(int fd, struct buf *out, struct msg_fds *fds, struct err *err)
{
	autovar(msg_fds) came = {0};
	union control control = {0};

	buf_clear(out);
	struct iovec iov = {.iov_base = buf_reserve(out, MSG_SIZE_MAX), .iov_len = MSG_SIZE_MAX};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.bytes,
			    .msg_controllen = sizeof(control.bytes)};
	ssize_t got;
	do
		got = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return MSG_AGAIN;
	if (got < 0 && errno != ECONNRESET)
		return err_sys(err, "receive a message");
	collect_fds(&mh, &came);
	/* Nobody sends empty messages, so that nothing is the end. */
	if (got <= 0)
		return MSG_CLOSED;
	if ((mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
		return err_set(err, ERR_INVALID, "a message was larger than %d bytes or %d descriptors", MSG_SIZE_MAX,
			       MSG_FDS_MAX);
	if (fds == NULL && came.count > 0)
		return err_set(err, ERR_INVALID, "a message brought %zu descriptors that nobody asked for", came.count);
	out->len = (size_t)got;
	out->data[out->len] = '\0';
	if (fds != NULL) {
		*fds = came;
		came.count = 0;
	}
	return 0;
}
