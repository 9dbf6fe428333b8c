#include "base/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { BLOCK_SIZE = 8192 };

struct block {
	struct block *next;
	size_t used;
	size_t size;
	alignas(max_align_t) char bytes[];
};

struct arena {
	struct block *blocks; /* the newest first; only it has room */
};

struct arena *arena_new(void)
{
	return xcalloc(1, sizeof(struct arena));
}

void arena_free(struct arena *a)
{
	if (a == NULL)
		return;
	while (a->blocks != NULL) {
		struct block *block = a->blocks;
		a->blocks = block->next;
		free(block);
	}
	free(a);
}

static void add_block(struct arena *a, size_t size)
{
	size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;
	size_t total = 0;

	if (__builtin_add_overflow(room, sizeof(struct block), &total))
		out_of_memory();
	struct block *block = xmalloc(total);
	block->next = a->blocks;
	block->used = 0;
	block->size = room;
	a->blocks = block;
}

void *arena_alloc(struct arena *a, size_t size)
{
	const size_t mask = alignof(max_align_t) - 1;
	size_t need = 0;

	if (__builtin_add_overflow(size > 0 ? size : 1, mask, &need))
		out_of_memory();
	need &= ~mask;
	if (a->blocks == NULL || a->blocks->size - a->blocks->used < need)
		add_block(a, need);
	char *p = a->blocks->bytes + a->blocks->used;
	a->blocks->used += need;
	memset(p, 0, need);
	return p;
}

void *arena_calloc(struct arena *a, size_t count, size_t size)
{
	size_t total = 0;

	if (__builtin_mul_overflow(count, size, &total))
		out_of_memory();
	return arena_alloc(a, total);
}

char *arena_str(struct arena *a, struct str s)
{
	char *copy = arena_alloc(a, s.len + 1);

	if (s.len > 0)
		memcpy(copy, s.data, s.len);
	return copy;
}

char *arena_strdup(struct arena *a, const char *text)
{
	return arena_str(a, str_c(text));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list args;
	va_list again;

	va_start(args, fmt);
	va_copy(again, args);
	int len = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	char *text = arena_alloc(a, len < 0 ? 1 : (size_t)len + 1);
	if (len > 0)
		(void)vsnprintf(text, (size_t)len + 1, fmt, args);
	va_end(args);
	return text;
}
