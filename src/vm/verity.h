/*
 * dm-verity of an image file: the hash tree behind its data, as veritysetup writes it (format 1, SHA-256, blocks of
 * 4,096 bytes, no salt; superblock first, then the levels from the top), so that the file's own tools agree. The root
 * hash stands for every byte of the data; where the data ends, the squashfs before it says.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum { VERITY_BLOCK = 4096, VERITY_ROOT_SIZE = 65 };

struct verity {
	char root[VERITY_ROOT_SIZE]; /* hex */
	uint64_t data_blocks;	     /* the tree begins one block behind them */
};

/* The whole file is data, in whole blocks; the tree is appended. */
int verity_append(int fd, struct verity *ret, struct err *err) must_check;

enum { VERITY_NONE = 1 };
/* What stands in the file; reads one block of the tree, so it is for a file whose digest has been checked.
 * VERITY_NONE: there is no tree. */
int verity_read(int fd, struct verity *ret, struct err *err) must_check;
/* Computes the tree anew and compares all of it. ERR_INVALID names the first block that differs. */
int verity_check(int fd, const struct verity *v, struct err *err) must_check;
