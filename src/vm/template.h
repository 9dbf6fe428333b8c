/*
 * Templates: machines that were booted once, saved before they had any identity, and are begun from there for each job
 * (VM_CLONE of vm/driver.h). A template is a folder with three files and a manifest (proto/template_manifest.h):
 *
 *	memory   the machine's memory. QEMU 7.2 opens it for writing even to copy it on write, so its mode is 0600
 *	state    the rest of the machine
 *	disk     its scratch disk, of which each clone gets a copy
 *
 * It is made in a folder named new-*, which counts for nothing, and renamed when all of it is on disk. What differs
 * from its manifest in any way, or belongs to somebody else, is not used. These functions block.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "proto/template_manifest.h"

enum { TEMPLATE_NAME_SIZE = 32 };
/* Names of folders: of one that is whole, and of one that is being made. */
#define TEMPLATE_DONE "template-"
#define TEMPLATE_NEW "new-"
#define TEMPLATE_MANIFEST "manifest"
#define TEMPLATE_KEY_FILE "key"

/* What it is made from; descriptors are the caller's. */
struct template_order {
	const char *image; /* a name, to find it by */
	struct template_shape shape;
	int kernel_fd, initrd_fd, root_fd;
	int self_fd;	     /* this program: what it tells QEMU is part of a template */
	const char *program; /* the VMM; NULL: the driver's own */
	int64_t tsc_khz;
};

/* The key of this folder of templates, which is made where there is none. */
int template_key(int templates_fd, struct secret **ret, struct err *err) must_check;

/* What is now the same of a file as its digest; and the host's part of a manifest. For template_make(). */
int template_look(int fd, struct template_file *ret, struct err *err) must_check;
int template_look_at_host(struct arena *arena, struct template_manifest *ret, struct err *err) must_check;
int template_open_program(const struct template_order *order, int *ret_fd, struct err *err) must_check;

/* Boots it, saves it, writes it down: two or three seconds. Killed at any point it leaves nothing that counts.
 * (template_make.c) */
int template_make(int templates_fd, int scratch_cache_fd, const struct secret *key, const struct template_order *order,
		  char ret_name[static TEMPLATE_NAME_SIZE], struct err *err) must_check;

/* Its manifest, found genuine, of files that are whole, ours, and untouched since. Text lies in the arena. */
int template_load(int templates_fd, const char *name, const struct secret *key, struct arena *arena,
		  struct template_manifest *ret, struct err *err) must_check;
/* Reads all of its files and compares: a fraction of a second. */
int template_verify(int templates_fd, const char *name, const struct template_manifest *m, struct err *err) must_check;

/* 0: made on this host as it is. TEMPLATE_STALE: on another one, or under another kernel. */
enum { TEMPLATE_STALE = 1 };
int template_fits_host(const struct template_manifest *m, int64_t tsc_khz, struct err *err) must_check;
/* 0: made from just this. TEMPLATE_STALE: from something else. Fast. */
int template_fits(const struct template_manifest *m, const struct template_order *order, struct err *err) must_check;

/* Its files, for one clone, if they are still what the manifest says. Closed and -1 where it fails. */
struct template_fds {
	int memory, state, disk;
};
int template_open(int templates_fd, const char *name, const struct template_manifest *m, struct template_fds *ret,
		  struct err *err) must_check;
void template_fds_fini(struct template_fds *f);
AUTOVAR_DEFINE(template_fds)

/* That it takes on the disk. */
int64_t template_bytes(int templates_fd, const char *name) must_check;

/* Every folder of one; `done`: else it is unfinished. */
typedef void (*template_fn)(void *ctx, const char *name, bool done);
int template_each(int templates_fd, template_fn fn, void *ctx, struct err *err) must_check;
/* VMs that were begun from it go on. */
int template_remove(int templates_fd, const char *name, struct err *err) must_check;
