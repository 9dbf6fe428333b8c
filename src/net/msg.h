/*
 * Small messages between processes of one host: unix SOCK_SEQPACKET, one send is one receive, descriptors travel along.
 * Sockets are non-blocking and close-on-exec. A socket lives in a folder and is named by (folder, name), so that no
 * path length matters.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum { MSG_SIZE_MAX = 64 * 1024, MSG_FDS_MAX = 8 };

/* Outcomes, see below. */
enum { MSG_AGAIN = 1, MSG_CLOSED = 2 };

/* Descriptors that came with a message: closed with it unless taken (fd_take()). */
struct msg_fds {
	int fds[MSG_FDS_MAX];
	size_t count;
};
void msg_fds_fini(struct msg_fds *f);
AUTOVAR_DEFINE(msg_fds)

/* Mode 0600; takes the place of a socket file that is left over. */
int msg_listen(int dirfd, const char *name, int *ret_fd, struct err *err) must_check;
/* MSG_AGAIN when nobody waits. A peer of another uid than ours (or root) is refused: ERR_FORBIDDEN. */
int msg_accept(int listener, int *ret_fd, struct err *err) must_check;
/* ERR_NOT_FOUND: no such socket file; ERR_UNAVAILABLE: nobody listens any more; ERR_FORBIDDEN: somebody else does. */
int msg_connect(int dirfd, const char *name, int *ret_fd, struct err *err) must_check;
int msg_pair(int ret_fds[static 2], struct err *err) must_check;

/* 0 sent whole; MSG_AGAIN: the peer's buffer is full, wait for LOOP_WRITE; MSG_CLOSED: the peer is gone. Keeps fds. */
int msg_send(int fd, struct str message, const int *fds, size_t fd_count, struct err *err) must_check;
/* 0: one message, in place of what `out` held; its descriptors in *fds, which is empty before (NULL: one that brings
 * any is refused). MSG_AGAIN: nothing there; MSG_CLOSED: the peer is gone. ERR_INVALID: too large; dropped. */
int msg_recv(int fd, struct buf *out, struct msg_fds *fds, struct err *err) must_check;
/* The process at the other end, as the kernel saw it when it connected or listened. */
int msg_peer(int fd, pid_t *ret_pid, uid_t *ret_uid, struct err *err) must_check;
