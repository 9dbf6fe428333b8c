/*
 * The life of one job in one VM, as the shim sees it: told by the agent what to run, it starts the VM, gives the guest
 * the job, brings its output to spool and pipeline, keeps limits and lease, and tells the end until it is acknowledged.
 *
 *	waiting -> [spare ->] booting -> booted -> running -> ending -> exited
 *
 * A spare is a clone without a job: it waits, standing still, for one, and goes at once where its agent goes.
 * `ending` is entered once, with all that decides the outcome known; the VM is killed, and when it is gone and the
 * log's last line is on disk, the exit is reported. Any state may skip to ending. The lease's deadline holds until the
 * exit is acknowledged: past it the VM is gone and nothing more is sent.
 *
 * A VM that does not come up, before any of the job is in it: a clone boots instead, and a boot is tried once more.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"
#include "vm/driver.h"

struct life;

struct life_opts {
	struct loop *loop; /* stopped when all is done */
	int dir_fd;	   /* the VM's folder; taken */
	int agent_fd;	   /* the first agent; taken; or -1 */
	const struct vm_driver *driver;
	int64_t hello_timeout_ns; /* from the VM's start to the guest's answer; 0: by what the machine has to do */
};

int life_new(const struct life_opts *opts, struct life **ret, struct err *err) must_check;
/* A VM that still runs is killed. */
void life_free(struct life *l);
AUTOPTR_DEFINE(life)
