/*
 * Frames `u32 length, u8 type ... payload`, as the guest channel and sessions have them: tables of their types, and
 * what gathers their bytes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/str.h"
#include "proto/cursor.h"

/* A row of a table that the type indexes; without a name there is no such type. */
struct frame_type {
	const char *name;
	unsigned sender; /* a mask of its protocol */
	size_t least;	 /* bytes of payload */
};

static inline const struct frame_type *frame_type_of(const struct frame_type *types, size_t count, int type)
{
	return type >= 0 && (size_t)type < count && types[type].name != NULL ? &types[type] : NULL;
}

static inline uint32_t frame_length(const unsigned char *header)
{
	struct cursor c = {.rest = {(const char *)header, 4}};

	return cursor_u32(&c);
}

/* In the frame that begins at `start`, whose payload ends where the bytes do. */
static inline void frame_set_length(struct buf *out, size_t start, size_t length)
{
	for (size_t i = 0; i < 4; i++)
		out->data[start + i] = (char)(length >> (8 * i));
}

/* Moves bytes off the front of *input until `bytes` holds `want`. */
static inline bool frame_gather(unsigned char *bytes, size_t *have, struct str *input, size_t want)
{
	size_t len = want > *have ? want - *have : 0;

	if (len > input->len)
		len = input->len;
	if (len > 0)
		memcpy(bytes + *have, input->data, len);
	*have += len;
	input->data += len;
	input->len -= len;
	return *have >= want;
}
