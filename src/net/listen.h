/*
 * A listening socket, TCP or unix, and who holds the place when it cannot be had.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct tls;

struct listener {
	int fd;
	uint16_t port;	 /* TCP */
	char *path;	 /* unix socket; NULL: TCP */
	int lock_fd;	 /* ... whose lock it is: while it is held nobody else takes the path */
	struct tls *tls; /* for the server; nothing here depends on it */
};
/* A unix socket's path is removed. NULL is fine. */
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
