/*
 * One of our own outputs, on a loop: bytes of a process go there as fast as it takes them, and a reader that is slow,
 * or has stopped, holds up nothing but them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "net/loop.h"

struct sink;

struct sink_opts {
	struct loop *loop;
	int fd;					  /* stays the caller's */
	void (*written)(void *ctx, size_t bytes); /* they left us; or nobody will ever read them */
	void (*broken)(void *ctx);		  /* once: whoever read there does no more. What follows is dropped */
	void (*failed)(void *ctx, const struct err *err); /* once: a full disk, say. What follows is dropped */
	void *ctx;
};

int sink_new(const struct sink_opts *opts, struct sink **ret, struct err *err) must_check;
void sink_free(struct sink *s);
AUTOPTR_DEFINE(sink)

/* Copies what cannot be written at once. May call back before it returns. */
void sink_put(struct sink *s, struct str bytes);
/* Bytes that wait. */
size_t sink_waiting(const struct sink *s);
