/*
 * Memory that cannot fail: each of these aborts the process where malloc gives NULL. Sizes that come from
 * outside are checked against a limit before they get here, so an abort is never a request's fault.
 */
#pragma once

#include <stddef.h>

#include "base/compiler.h"

void *xmalloc(size_t size) must_check __attribute__((malloc));
void *xcalloc(size_t count, size_t size) must_check __attribute__((malloc));
/* Aborts too when count * size does not fit a size_t. */
void *xreallocarray(void *old, size_t count, size_t size) must_check;
char *xstrdup(const char *text) must_check;
/* A copy of len bytes with a NUL after them. */
char *xmemdup0(const void *bytes, size_t len) must_check;
char *xasprintf(const char *fmt, ...) must_check printf_like(1, 2);

/* Says so and aborts. */
noreturn_fn void out_of_memory(void);

/* For libraries that give NULL when they are out of memory: passes a good pointer on, aborts otherwise. */
void *xcheck(void *p) must_check;

unused_fn static inline void auto_free(void *p)
{
	free(*(void **)p);
}
#define autofree __attribute__((cleanup(auto_free)))
