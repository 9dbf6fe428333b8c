/*
 * The shim's side of the talk with the agent: its socket in the VM's folder, and the one connection that counts, the
 * newest. A peer that breaks the protocol or does not read is dropped; it may connect again and is told everything.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"
#include "net/msg.h"
#include "proto/shim_msg.h"

struct link;

struct link_ops {
	void (*connected)(void *ctx);
	/* `m` lies in `arena`; fds that are not taken are closed. Both are the callee's to keep: *arena is set to NULL.
	 */
	void (*message)(void *ctx, struct shim_msg *m, struct arena **arena, struct msg_fds *fds);
	void (*gone)(void *ctx);
};

struct link_opts {
	struct loop *loop;
	int dir_fd;   /* where SHIM_SOCKET is made */
	int agent_fd; /* taken: the first agent; or -1 */
	const struct link_ops *ops;
	void *ctx;
};

/* Calls connected() from the loop. */
int link_new(const struct link_opts *opts, struct link **ret, struct err *err) must_check;
void link_free(struct link *l);
AUTOPTR_DEFINE(link)

bool link_has_agent(const struct link *l);
/* Nothing where there is no agent. */
void link_send(struct link *l, const struct shim_msg *m);
