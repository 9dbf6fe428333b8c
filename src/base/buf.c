#include "base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void buf_fini(struct buf *b)
{
	free(b->data);
	*b = (struct buf){0};
}

char *buf_reserve(struct buf *b, size_t more)
{
	size_t need = 0;

	/* One byte over, for the NUL. */
	if (__builtin_add_overflow(b->len, more, &need) || __builtin_add_overflow(need, 1, &need))
		out_of_memory();
	if (need > b->cap) {
		size_t cap = b->cap < 64 ? 64 : b->cap;
		while (cap < need)
			cap = cap > SIZE_MAX / 2 ? need : cap * 2;
		b->data = xreallocarray(b->data, cap, 1);
		b->cap = cap;
	}
	return b->data + b->len;
}

static void grow(struct buf *b, size_t len)
{
	b->len += len;
	b->data[b->len] = '\0';
}

void buf_append(struct buf *b, const void *bytes, size_t len)
{
	char *to = buf_reserve(b, len);

	if (len > 0)
		memcpy(to, bytes, len);
	grow(b, len);
}

void buf_append_str(struct buf *b, struct str s)
{
	buf_append(b, s.data, s.len);
}

void buf_puts(struct buf *b, const char *text)
{
	buf_append(b, text, strlen(text));
}

void buf_putc(struct buf *b, char c)
{
	buf_append(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list args)
{
	va_list again;

	va_copy(again, args);
	int len = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	assert(len >= 0);
	char *to = buf_reserve(b, (size_t)len);
	(void)vsnprintf(to, (size_t)len + 1, fmt, args);
	grow(b, (size_t)len);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	buf_vprintf(b, fmt, args);
	va_end(args);
}

static void put_le(struct buf *b, uint64_t value, size_t size)
{
	unsigned char *to = (unsigned char *)buf_reserve(b, size);

	for (size_t i = 0; i < size; i++)
		to[i] = (unsigned char)(value >> (8 * i));
	grow(b, size);
}

void buf_put_u16(struct buf *b, uint16_t value)
{
	put_le(b, value, 2);
}

void buf_put_u32(struct buf *b, uint32_t value)
{
	put_le(b, value, 4);
}

void buf_put_u64(struct buf *b, uint64_t value)
{
	put_le(b, value, 8);
}

void buf_consume(struct buf *b, size_t len)
{
	assert(len <= b->len);
	if (len == 0)
		return;
	memmove(b->data, b->data + len, b->len - len);
	b->len -= len;
	b->data[b->len] = '\0';
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	if (b->data != NULL)
		b->data[0] = '\0';
}

char *buf_take(struct buf *b)
{
	if (b->data == NULL)
		return xstrdup("");
	char *data = TAKE(b->data);
	*b = (struct buf){0};
	return data;
}

struct str buf_str(const struct buf *b)
{
	return (struct str){b->data, b->len};
}
