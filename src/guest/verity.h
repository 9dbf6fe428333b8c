/*
 * dm-verity under the job's root: every block of the image is checked when it is read, against the root hash of the
 * kernel's command line (`nimbus.verity=ROOT,BLOCKS`), which the host has put there. Libc only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum { VERITY_HEX = 64 };

struct verity_wish {
	char root[VERITY_HEX + 1];
	uint64_t blocks; /* of data, 4,096 bytes each; the superblock and then the tree follow */
};

/* What a command line asks for; false where it asks for none, or for nonsense. */
bool verity_wanted(const char *command_line, struct verity_wish *ret);

enum { VERITY_NO_DRIVER = 1 };
/* Makes a device of the disk, and gives its path. VERITY_NO_DRIVER: this kernel cannot. */
int verity_map(const char *disk, const struct verity_wish *wish, char *path, size_t size, struct err *err) must_check;
