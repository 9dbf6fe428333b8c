/*
 * The image that a lease names, opened and proved: the file has the digest that the control plane chose. A digest that
 * was computed is remembered by the file's device, inode, size and times, in a folder of the agent's own, which no job
 * can write; so a file is read whole once, and again after anything touched it. Blocks: for the worker.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "vm/assets.h"
#include "vm/verity.h"

struct image {
	char digest[ASSETS_DIGEST_SIZE]; /* of the file that was opened; "": none was */
	bool has_verity;
	struct verity verity;
};

struct image_order {
	int assets_fd;
	int verified_fd;    /* the folder of remembered digests */
	const char *name;   /* "demo" */
	const char *digest; /* that the lease names; NULL: whichever this host has under the name */
};

/* ERR_NOT_FOUND: this host does not have it; ERR_INVALID: the file is another one than its name says. */
int image_open(const struct image_order *o, struct image *ret, int *ret_fd, struct err *err) must_check;
