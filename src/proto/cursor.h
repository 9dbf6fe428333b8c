/*
 * Reading and writing the numbers and texts of a frame: what the modules of the guest channel and of sessions share.
 *
 * A cursor is a place in a payload. Reading past its end sets `bad` and gives zeros, so that one check at the end will
 * do.
 */
#pragma once

#include <stdbool.h>
#include <string.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/str.h"

struct cursor {
	struct str rest;
	bool bad;
};

static inline void cursor_take(struct cursor *c, void *to, size_t len)
{
	if (c->bad || c->rest.len < len) {
		c->bad = true;
		memset(to, 0, len);
		return;
	}
	memcpy(to, c->rest.data, len);
	c->rest.data += len;
	c->rest.len -= len;
}

static inline uint64_t cursor_number(struct cursor *c, size_t size)
{
	unsigned char bytes[8] = {0};
	uint64_t value = 0;

	cursor_take(c, bytes, size);
	for (size_t i = size; i-- > 0;)
		value = value << 8 | bytes[i];
	return value;
}

static inline uint8_t cursor_u8(struct cursor *c)
{
	return (uint8_t)cursor_number(c, 1);
}

static inline uint16_t cursor_u16(struct cursor *c)
{
	return (uint16_t)cursor_number(c, 2);
}

static inline uint32_t cursor_u32(struct cursor *c)
{
	return (uint32_t)cursor_number(c, 4);
}

static inline uint64_t cursor_u64(struct cursor *c)
{
	return cursor_number(c, 8);
}

/* Text with its NUL. */
static inline const char *cursor_text(struct cursor *c)
{
	const char *text = c->rest.data;
	ptrdiff_t end = c->bad ? -1 : str_find(c->rest, '\0');

	if (end < 0) {
		c->bad = true;
		return "";
	}
	c->rest.data += end + 1;
	c->rest.len -= (size_t)end + 1;
	return text;
}

/* A count and as many texts: at most `max`, and a NULL behind them. */
static inline size_t cursor_texts(struct cursor *c, const char **ret, size_t max)
{
	uint32_t count = cursor_u32(c);

	if (count > max)
		c->bad = true;
	for (size_t i = 0; i < count && !c->bad; i++)
		ret[i] = cursor_text(c);
	ret[c->bad ? 0 : count] = NULL;
	return c->bad ? 0 : count;
}

/* All of "NAME=value". */
static inline void cursor_check_env(struct cursor *c, const char *const *env, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const char *equals = strchr(env[i], '=');
		if (equals == NULL || equals == env[i])
			c->bad = true;
	}
}

static inline void buf_put_text(struct buf *out, const char *text)
{
	buf_append(out, text, strlen(text) + 1);
}
