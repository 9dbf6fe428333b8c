/*
 * The face of a hypervisor driver. A driver turns what is wanted (struct vm_spec) into a launch specification, and
 * then gives the guest channel; who executes the specification is not its business (vm/launch.h). A job's VM:
 *
 *	vm_prepare(driver, &spec, &vm, err)          nothing runs yet; memory, files and sockets are ready
 *	vm_launch(&vm->launch, &process, err)        the VMM runs, with its death tied to ours
 *	vm_connect(vm, &fd, err)                     the channel's byte stream; VM_NOT_YET: call again soon
 *	guest_hello_encode(...) on it                proto/guest_frame.h
 *	process_signal(&process, SIGKILL, err)       the end, at any time
 *	vm_free(vm)
 *
 * None of these waits for a guest. Guests, kernels and disks come as descriptors, never as paths.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "proto/guest_frame.h"
#include "vm/launch.h"

enum vm_accel { VM_TCG, VM_KVM };

enum {
	VM_VCPUS_MAX = 32,
	VM_MEMORY_MB_MIN = 96,
	VM_MEMORY_MB_MAX = 1024 * 1024,
};

/* How a VM's life begins: by booting; so too, but to be saved before it has any identity; or from what was saved. */
enum vm_origin { VM_COLD, VM_TEMPLATE, VM_CLONE };

/* All descriptors stay the caller's; a driver duplicates what it keeps. */
struct vm_spec {
	enum vm_origin origin;
	/* Not of a cold boot. For a template: two empty files, opened read-write; for a clone: the same as they were
	 * saved. QEMU opens the memory anew for writing, and writes to it for a template only. */
	int memory_fd;
	int state_fd;	  /* a clone reads it from its offset on */
	const char *name; /* in messages and in the process list: letters, digits, '-' */
	int dir_fd;	  /* the VM's own folder, for drivers that need sockets with names; or -1 */
	int kernel_fd;	  /* an ELF vmlinux */
	int initrd_fd;	  /* vm/initramfs.h */
	int root_fd;	  /* a squashfs, opened read-only */
	int scratch_fd;	  /* an ext4 image, opened read-write (vm/scratch.h); -1: the guest writes to its memory */
	bool network;	  /* a network device; else the VM has none at all */
	int network_fd;	  /* who carries its frames (vm/passt.h), a connected stream; -1: nobody, as in a template.
			     Counts only with `network` */
	unsigned vcpus;
	unsigned memory_mb;
	enum vm_accel accel;
	const char *program; /* the VMM: a path, or a name that is looked for in PATH; NULL: the driver's own */
	int64_t tsc_khz;     /* of the host, for TCG (vm/tsc.h); 0: measured by vm_prepare(), which takes 20 ms */
};

struct vm;

/* What a VMM tells of its VM besides what the guest says. It may be a lie: a guest may have taken it over. */
enum vm_news {
	VM_NEWS_UP,	  /* the VMM listens to us */
	VM_NEWS_RUNS,	  /* a clone has all its state, and runs */
	VM_NEWS_NO_SPACE, /* the VM stands still: what it writes to its scratch disk finds no room on the host's */
	VM_NEWS_REFUSED,  /* what was asked of it; `text` is why */
};
typedef void (*vm_news_fn)(void *ctx, enum vm_news news, const char *text);

struct vm_driver {
	const char *name;
	const char *program; /* its VMM, where vm_spec names none */
	int (*prepare)(const struct vm_spec *spec, struct vm **ret, struct err *err);
	int (*connect)(struct vm *vm, int *ret_fd, struct err *err);
	int (*hear)(struct vm *vm, vm_news_fn fn, void *ctx, struct err *err);
	int (*hold)(struct vm *vm, struct err *err);
	int (*go_on)(struct vm *vm, struct err *err);
	int (*save)(struct vm *vm, int64_t deadline_ns, struct err *err);
	void (*free)(struct vm *vm);
};

/* Embedded at the front of each driver's own struct. */
struct vm {
	const struct vm_driver *driver;
	struct vm_launch launch;
	int console_fd; /* non-blocking pipe: the guest's console and the VMM's complaints. The caller reads it (a full
			   one slows the guest), keeps the end of it for the story of a VM that died, trusts none of it
			 */
	int control_fd; /* readable when vm_hear() has something */
	int window_fd;	/* memory that the guest has as a disk (proto/guest_window.h): its size is for ever, and what it
			   holds, the guest's as much as ours */
};

const struct vm_driver *vm_driver_by_name(struct str name); /* "qemu"; NULL */

/* The path of a VMM: `program` itself where it has a '/', else found in PATH; ERR_UNAVAILABLE. Free it. */
int vm_find_program(const char *program, char **ret, struct err *err) must_check;

int vm_prepare(const struct vm_driver *driver, const struct vm_spec *spec, struct vm **ret, struct err *err) must_check;

enum { VM_NOT_YET = 1 };
/* The caller owns *ret_fd, a non-blocking stream. VM_NOT_YET: the VMM is not so far; again in some milliseconds. */
int vm_connect(struct vm *vm, int *ret_fd, struct err *err) must_check;

/* What the VMM has told by now, a bounded part of it: `fn` is called for each, and may call vm_go_on(). Negative: it
 * tells no more. */
int vm_hear(struct vm *vm, vm_news_fn fn, void *ctx, struct err *err) must_check;
/* It stands still, its clock too, and costs nothing but memory until vm_go_on(). */
int vm_hold(struct vm *vm, struct err *err) must_check;
/* A VM that stands still runs again, and does again what it could not do. */
int vm_go_on(struct vm *vm, struct err *err) must_check;

/* Of a template: writes its state and its memory to the files of the spec, and stops it for ever. Blocks until
 * deadline_ns (monotonic). */
int vm_save(struct vm *vm, int64_t deadline_ns, struct err *err) must_check;

/* Kills nothing: the process is the launcher's. */
void vm_free(struct vm *vm);
AUTOPTR_DEFINE(vm)
