/*
 * A growing array of bytes. Empty is all zeros, so a buf needs no constructor; buf_fini() releases it.
 * A NUL always follows the bytes of a buf that holds any, and is not counted.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/str.h"

struct buf {
	char *data;
	size_t len;
	size_t cap;
};

void buf_fini(struct buf *b);
AUTOVAR_DEFINE(buf)

/* Room for `more` further bytes; gives where they go. */
char *buf_reserve(struct buf *b, size_t more);
void buf_append(struct buf *b, const void *bytes, size_t len);
void buf_append_str(struct buf *b, struct str s);
void buf_puts(struct buf *b, const char *text);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) printf_like(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list args);
/* Little-endian, as all of our formats are. */
void buf_put_u16(struct buf *b, uint16_t value);
void buf_put_u32(struct buf *b, uint32_t value);
void buf_put_u64(struct buf *b, uint64_t value);
/* Drops the first len bytes. */
void buf_consume(struct buf *b, size_t len);
/* Forgets the bytes, keeps the memory. */
void buf_clear(struct buf *b);
/* The bytes as a NUL-terminated string that the caller frees; the buf is empty again. Never NULL. */
char *buf_take(struct buf *b) must_check;
struct str buf_str(const struct buf *b);
