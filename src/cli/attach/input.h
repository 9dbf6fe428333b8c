/*
 * Our standard input, read on a loop as far as there is room for it: a pipe, a terminal, a file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "net/loop.h"

/* Whether there is one that a process could read from: not /dev/null, not closed, not a terminal in whose background we
 * are. */
bool input_is_there(void);

struct input;

struct input_ops {
	/* How many bytes may be read now. */
	size_t (*room)(void *ctx);
	/* None: that was the end. */
	void (*bytes)(void *ctx, struct str bytes);
	/* It cannot be waited for any more. */
	void (*failed)(void *ctx, const struct err *err);
};

int input_new(struct loop *loop, const struct input_ops *ops, void *ctx, struct input **ret, struct err *err)
	must_check;
/* NULL is fine, here and below. */
void input_free(struct input *in);
AUTOPTR_DEFINE(input)

/* The room may have changed. */
void input_pump(struct input *in);
