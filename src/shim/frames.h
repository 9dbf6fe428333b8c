/*
 * Between a VM's network device and who carries its frames: passes on what proto/ethernet.h allows, and all that comes
 * back. Memory is bounded: a side that takes nothing stops the other.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"
#include "proto/ethernet.h"

struct frames;

struct frames_opts {
	struct loop *loop;
	int vm_fd;	/* taken: our end of the device's stream */
	int carrier_fd; /* taken */
	struct ethernet_guest guest;
};

/* When either side ends or the VM sends what are no frames, both are closed, and so the carrier ends. */
int frames_new(const struct frames_opts *opts, struct frames **ret, struct err *err) must_check;
void frames_free(struct frames *f);
AUTOPTR_DEFINE(frames)
