#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void out_of_memory(void)
{
	static const char text[] = "fatal: out of memory\n";

	(void)!fwrite(text, 1, sizeof(text) - 1, stderr);
	abort();
}

void *xcheck(void *p)
{
	if (p == NULL)
		out_of_memory();
	return p;
}

void *xmalloc(size_t size)
{
	return xcheck(malloc(size > 0 ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
	return xcheck(calloc(count > 0 ? count : 1, size > 0 ? size : 1));
}

void *xreallocarray(void *old, size_t count, size_t size)
{
	return xcheck(reallocarray(old, count > 0 ? count : 1, size > 0 ? size : 1));
}

char *xstrdup(const char *text)
{
	return xcheck(strdup(text));
}

char *xmemdup0(const void *bytes, size_t len)
{
	char *copy = xmalloc(len + 1);

	if (len > 0)
		memcpy(copy, bytes, len);
	copy[len] = '\0';
	return copy;
}

char *xasprintf(const char *fmt, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, fmt);
	int len = vasprintf(&text, fmt, args);
	va_end(args);
	return xcheck(len < 0 ? NULL : text);
}
