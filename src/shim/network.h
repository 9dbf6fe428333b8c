/*
 * The network of one job on a loop: a passt (vm/passt.h) that was found to work before the VM is started with it, and
 * whose end is noticed. What the VM sends goes through frames.h first: passt alone would connect to the host's loopback
 * for a guest whose root sends packets to 127.0.0.1. It ends with its VM; what is left of it is killed.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"
#include "proto/guest_frame.h"

/* What a job's log says where it is open, until there is a policy of what it may reach. */
#define SHIM_NETWORK_OPEN_NOTE                                                                                    \
	"network 'open': this job reaches all that its host reaches by IPv4: the internet, private networks and " \
	"the host's own addresses, but not the host's loopback, nor link-local addresses and a cloud's metadata " \
	"server; no policy limits that yet. It has no IPv6: names have none of its addresses"

struct network;

/* Each may free it. */
struct network_ops {
	/* Once: the VM may be started with network_vm_fd(). */
	void (*ready)(void *ctx);
	/* Once, instead: there is no network, and the message says what to do. */
	void (*failed)(void *ctx, const struct err *err);
	/* After ready, once: it is no more, though nobody ended it. */
	void (*gone)(void *ctx, const struct err *err);
};

/* Not called back from within. */
int network_start(struct loop *loop, const struct network_ops *ops, void *ctx, struct network **ret, struct err *err)
	must_check;
/* For the guest's hello. */
const struct guest_network *network_address(const struct network *n);
/* Borrowed; after network_given() it is closed, so that the VM's end is the stream's. */
int network_vm_fd(const struct network *n);
void network_given(struct network *n);
/* No news any more: it may end. */
void network_let_go(struct network *n);
/* NULL is fine. */
void network_free(struct network *n);
AUTOPTR_DEFINE(network)
