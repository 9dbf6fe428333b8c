/*
 * A listening socket, TCP or unix, and who holds the place when it cannot be had.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct tls;

struct listener {
	int fd;
	uint16_t port;	 /* TCP */
	char *path;	 /* unix socket; NULL: TCP */
	int lock_fd;	 /* ... whose lock it is: while it is held nobody else takes the path */
	bool inherited;	 /* whoever opened it keeps its place */
	struct tls *tls; /* for the server; nothing here depends on it */
};
/* A unix socket's path is removed, unless it was inherited. NULL is fine. */
void listener_free(struct listener *l);
AUTOPTR_DEFINE(listener)

/* What an address begins with that is the path of a unix socket. */
#define LISTEN_UNIX "unix:"

/*
 * `address` is numeric, or "unix:/path". Non-blocking. Port 0 gives a free one. ERR_CONFLICT: it is in use, by the
 * process that the message names where this user may see it. A unix socket that its role left behind is replaced; its
 * mode is 0660.
 */
int listener_open(const char *address, uint16_t port, struct listener **ret, struct err *err) must_check;

/*
 * The sockets that whoever started this process opened for it: a service manager, or `up`. They stay open when the
 * process ends, and connections wait in them for the next one, so a restart refuses nobody. sd_listen_fds(3):
 * LISTEN_FDS of them from descriptor 3 on; here LISTEN_PID counts only where it is set. Gives how many there are, all
 * non-blocking; the variables are removed. To be called before threads and before anything else is opened.
 * ERR_INVALID: what stands there is no listening socket.
 */
enum { LISTEN_INHERITED_MAX = 16, LISTEN_INHERITED_FIRST = 3 };
int listen_inherited(int fds[static LISTEN_INHERITED_MAX], size_t *ret_count, struct err *err) must_check;
/* Takes one of them. */
int listener_adopt(int fd, struct listener **ret, struct err *err) must_check;
