/*
 * Memory for everything that dies with one request or event: taken piece by piece, released at once.
 * One thread at a time. Nothing that lives longer may point into an arena.
 */
#pragma once

#include <stddef.h>

#include "base/compiler.h"
#include "base/str.h"

struct arena;

struct arena *arena_new(void) must_check;
void arena_free(struct arena *a);
AUTOPTR_DEFINE(arena)

/* Zeroed, aligned for any type. */
void *arena_alloc(struct arena *a, size_t size) must_check;
void *arena_calloc(struct arena *a, size_t count, size_t size) must_check;
char *arena_strdup(struct arena *a, const char *text) must_check;
/* A NUL-terminated copy. */
char *arena_str(struct arena *a, struct str s) must_check;
char *arena_printf(struct arena *a, const char *fmt, ...) must_check printf_like(2, 3);
