/*
 * Compiler attributes, clean-up attributes and the few macros that every module needs.
 */
#pragma once

#include <stddef.h>

#include "base/banned.h"

#define must_check __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define noreturn_fn __attribute__((noreturn))
#define unused_fn __attribute__((unused))

/* The number of elements of a real array; a pointer does not compile. */
#define ARRAY_LEN(a)                  \
	(sizeof(a) / sizeof((a)[0]) + \
	 0 * sizeof(char[1 - 2 * (int)__builtin_types_compatible_p(__typeof__(a), __typeof__(&(a)[0]))]))

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Moves ownership out of a local: gives its value and leaves NULL behind. */
#define TAKE(p)                             \
	({                                  \
		__typeof__(p) taken_ = (p); \
		(p) = NULL;                 \
		taken_;                     \
	})

/* The same for an embedded struct: gives its value and leaves zeros behind. */
#define TAKE_STRUCT(s)                                 \
	({                                             \
		__typeof__(s) taken_ = (s);            \
		(void)memset(&(s), 0, sizeof(taken_)); \
		taken_;                                \
	})

/*
 * autoptr(foo) declares a `struct foo *` that foo_free() releases at the end of its scope;
 * AUTOPTR_DEFINE(foo) stands once in the header that declares foo_free().
 */
#define AUTOPTR_DEFINE(name)                                           \
	unused_fn static inline void name##_auto_free(struct name **p) \
	{                                                              \
		name##_free(*p);                                       \
	}
#define autoptr(name) __attribute__((cleanup(name##_auto_free))) struct name *

/* autovar(foo) declares an embedded `struct foo` that foo_fini() releases at the end of its scope. */
#define AUTOVAR_DEFINE(name)                                          \
	unused_fn static inline void name##_auto_fini(struct name *p) \
	{                                                             \
		name##_fini(p);                                       \
	}
#define autovar(name) __attribute__((cleanup(name##_auto_fini))) struct name
