/*
 * The VM of one job, from its start to its end: its network, its VMM, the channel to its guest, and who the guest is
 * told to be. Here stands what is done where it does not come up: a clone boots instead, and a boot is tried once more,
 * since no job was in it.
 *
 *	idle -> [spare ->] starting -> up -> over
 *
 * A spare is a clone without a job: its guest goes once through all that a job's start costs, then it stands still
 * until job_vm_wake(). What the job writes and its guest asks for goes to the outside (outside.h) at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/process.h"
#include "net/loop.h"
#include "net/msg.h"
#include "proto/shim_msg.h"
#include "shim/channel.h"
#include "shim/outside.h"
#include "vm/driver.h"

struct job_vm;

struct job_vm_ops {
	/* The spare stands still: it may be woken. It takes so much of the host's memory; 0: not known. */
	void (*rests)(void *ctx, int64_t memory_bytes);
	/* The spare is none any more: it is to be freed. */
	void (*spoilt)(void *ctx, const char *why);
	/* Once: the guest has answered, and is who it is told to be. `booted` is as old as the VM. */
	void (*up)(void *ctx, const struct shim_booted *booted);
	/* It cannot be had, for the job cannot be started in it. */
	void (*failed)(void *ctx, const struct err *err);
	/* The guest is not spoken to any more. */
	void (*lost)(void *ctx, const struct err *err);
	/* Its network has ended under it. */
	void (*cut_off)(void *ctx, const struct err *err);
	/* Once: its VMM is no more. What the guest said last may still wait in the channel: channel_close(). */
	void (*gone)(void *ctx, const struct process_exit *exit, const struct shim_usage *usage);

	/* As struct channel_ops has them. */
	void (*timely)(void *ctx);
	void (*started)(void *ctx);
	void (*finished)(void *ctx, const struct guest_exit *exit);
};

struct job_vm_opts {
	struct loop *loop;
	const struct vm_driver *driver;
	int dir_fd;		      /* the VM's folder; borrowed */
	const struct shim_start *job; /* outlives it; what a spare's says is another's when that is woken */
	struct outside *outside;      /* the job's; borrowed */
	int64_t hello_timeout_ns;     /* as struct life_opts has it */
	const struct job_vm_ops *ops;
	void *ctx;
};

int job_vm_new(const struct job_vm_opts *opts, struct job_vm **ret, struct err *err) must_check;
/* A VM that still runs is killed. */
void job_vm_free(struct job_vm *v);
AUTOPTR_DEFINE(job_vm)

/* A clone at once, for nobody yet; takes the descriptors of enum shim_start_fd. */
int job_vm_start_spare(struct job_vm *v, struct msg_fds *fds, struct err *err) must_check;
/* The spare is the job's now, whose order came at since_ns: it goes on where its template was saved, and hears who it
 * is. One that does not stand still yet goes on with what it was at, and what it rehearses ends with that. */
void job_vm_wake(struct job_vm *v, int64_t since_ns);
/* The VM, at once or when there is a network for it; takes the descriptors. */
int job_vm_start(struct job_vm *v, struct msg_fds *fds, struct err *err) must_check;

/* To the guest; NULL: there is none yet, or it is started once more. Lives until job_vm_free() once the VM is up. */
struct channel *job_vm_channel(struct job_vm *v);
/* The VM's window (proto/guest_window.h), borrowed. Once it is up. */
int job_vm_window(const struct job_vm *v);
/* The last line that kernel or VMM printed; "" where there was none. */
const char *job_vm_last_words(struct job_vm *v);
/* How often it was started once more. */
int64_t job_vm_restarts(const struct job_vm *v);

/* Of the VM, and of a network that waits for it. Twice is fine. False: there is nothing (any more) of which `gone`
 * would be called. */
bool job_vm_end(struct job_vm *v);
