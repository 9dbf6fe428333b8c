/*
 * The agent's end of the talk with one shim.
 */
#pragma once

#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/shim_msg.h"

struct loop;
struct shim_link;

struct shim_link_ops {
	/* The message lives until it returns. */
	void (*message)(void *ctx, const struct shim_msg *m);
	/* The shim is gone, or talks nonsense (err): nothing more comes. */
	void (*gone)(void *ctx, const struct err *err);
};

/* Takes the socket. Both ops may free the link. */
int shim_link_new(struct loop *loop, int socket, const struct shim_link_ops *ops, void *ctx, struct shim_link **ret,
		  struct err *err) must_check;
void shim_link_free(struct shim_link *l);
/* Frees it, too, but for its socket: somebody else goes on with the talk. */
int shim_link_release(struct shim_link *l) must_check;
AUTOPTR_DEFINE(shim_link)

/* The descriptors stay the caller's. ERR_UNAVAILABLE: it is gone (`gone` will say so), or does not read any more. */
int shim_link_send(struct shim_link *l, const struct shim_msg *m, const int *fds, size_t fd_count, struct err *err)
	must_check;
