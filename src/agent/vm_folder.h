/*
 * The folder of one VM, VMS/<job>-<attempt>, and the shim that lives in it. These functions block: they run on the
 * worker, or before the loop does.
 *
 * Whoever starts a shim locks the folder through the descriptor that the shim inherits. The lock lasts as long as the
 * shim, whatever becomes of the agent: a folder that can be locked has no shim.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/image.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/process.h"
#include "proto/shim_msg.h"
#include "vm/template.h"

enum { VM_FOLDER_NAME_SIZE = 48 };

/* What all VMs of this host are made from. Descriptors are the caller's. */
struct vm_host {
	int vms_fd;	  /* the folder of VM folders */
	int assets_fd;	  /* vm/assets.h */
	int scratch_fd;	  /* vm/scratch.h */
	int self_fd;	  /* this program */
	int verified_fd;  /* agent/image.h */
	int templates_fd; /* vm/template.h */
	int64_t tsc_khz;
	const char *vmm; /* the VMM's program; NULL: the driver's own */
};

/* A template that was found genuine. Of its manifest no text counts but shape.accel, which is a constant. */
struct vm_template {
	char name[TEMPLATE_NAME_SIZE];
	struct template_manifest manifest;
};

struct vm_order {
	int64_t job_id;
	int64_t attempt;
	const char *image;
	const char *image_digest; /* NULL: whichever this host has */
	int64_t disk_mb;
	const struct vm_template *template; /* to be tried; NULL: the VM boots */
};

/* A shim that waits for its start message. */
struct vm_shim {
	struct process process;
	int socket;			    /* the agent's end */
	int start_fds[SHIM_START_FD_COUNT]; /* to be sent with the message */
	struct image image;		    /* what the rootfs among them is */
	size_t start_fd_count;
	enum { VM_TEMPLATE_NONE, VM_TEMPLATE_USED, VM_TEMPLATE_STALE, VM_TEMPLATE_BROKEN } template;
	struct err template_err; /* why it is broken */
};
/* None yet. */
void vm_shim_init(struct vm_shim *s);
/* Closes the descriptors; the process is not touched. */
void vm_shim_fini(struct vm_shim *s);
AUTOVAR_DEFINE(vm_shim)

char *vm_folder_name(int64_t job_id, int64_t attempt, char name[static VM_FOLDER_NAME_SIZE]);
bool vm_folder_parse(const char *name, int64_t *ret_job_id, int64_t *ret_attempt);

/* What a VM with this rootfs is booted from, into the first three of `fds`, which are closed with it whatever comes of
 * it. `digest`: as the lease names it, or NULL. */
int vm_folder_open_image(const struct vm_host *host, const char *name, const char *digest, int *fds, struct image *ret,
			 struct err *err) must_check;
/* Opens everything first, so that a job with a bad image leaves nothing behind. ERR_NOT_FOUND: no such rootfs;
 * ERR_INVALID: it is not the one that was named;
 * ERR_CONFLICT: the folder has a shim already. */
int vm_folder_start(const struct vm_host *host, const struct vm_order *order, struct vm_shim *ret, struct err *err)
	must_check;

/* Spares (proto/shim_msg.h): shims with a clone that waits for a job, in folders of this name and a number. */
#define VM_FOLDER_SPARE "spare-"
char *vm_folder_spare_name(int64_t number, char name[static VM_FOLDER_NAME_SIZE]);
/* A shim that waits for its spare message; of the order counts what is not a job's. VM_FOLDER_UNFIT: the template
 * cannot be used, and *ret says why; nothing was started. */
enum { VM_FOLDER_UNFIT = 2 };
int vm_folder_start_spare(const struct vm_host *host, const char *name, const struct vm_order *order,
			  struct vm_shim *ret, struct err *err) must_check;
/* Whether what a spare was begun from is still what this order needs. ERR_CONFLICT: it is not. */
int vm_folder_check(const struct vm_host *host, const struct vm_order *order, struct image *ret, struct err *err)
	must_check;
/* The same, and then the spare's folder becomes the job's. */
int vm_folder_hand_over(const struct vm_host *host, const char *spare, const struct vm_order *order, struct image *ret,
			struct err *err) must_check;
/* Removes the folders of all spares, which are a former agent's. *ret_left: so many still have a shim, which was told
 * to go. */
int vm_folder_sweep_spares(int vms_fd, size_t *ret_left, struct err *err) must_check;

/* Another shim on a folder whose own has died: it waits for a resume message, which brings no descriptors. */
int vm_folder_revive(const struct vm_host *host, const char *name, struct vm_shim *ret, struct err *err) must_check;
/* A shim left log lines in it that may not have arrived, and what another needs to ship them. */
bool vm_folder_has_spool(int vms_fd, const char *name);
enum { VM_FOLDER_BUSY = 1 };
/* Connects to the folder's shim. ERR_NOT_FOUND: it has none; VM_FOLDER_BUSY: it has one that does not listen yet. */
int vm_folder_connect(int vms_fd, const char *name, int *ret_socket, struct err *err) must_check;
/* VM_FOLDER_BUSY: a shim lives in it. */
int vm_folder_remove(int vms_fd, const char *name, struct err *err) must_check;

/* Every VM folder. */
typedef void (*vm_folder_fn)(void *ctx, const char *name, int64_t job_id, int64_t attempt);
int vm_folder_each(int vms_fd, vm_folder_fn fn, void *ctx, struct err *err) must_check;
