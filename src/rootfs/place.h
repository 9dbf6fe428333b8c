/*
 * Where an image is made before it comes into its store. Whoever may write in a folder may put links into it and other
 * things in the place of ours, and root follows those anywhere: so root makes images only where root alone may write.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct place {
	char *path;
	int fd;
	bool beside; /* it is not the store itself, and goes where nothing is left in it */
};
void place_fini(struct place *p);

/* The store, or as root, where others may write in it or above it, a folder of root's own: in the deepest one on the
 * way to the store that only root may change, as that is most likely on the same disk. */
int place_open(int store_fd, const char *store_dir, struct place *ret, struct err *err) must_check;
