/*
 * The guest's side of the window (proto/guest_window.h), for a child that packs or unpacks. Blocks. Goes around the
 * page cache: to an emulated CPU each byte that it need not touch itself is won.
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "proto/guest_window.h"

struct window {
	int disk_fd; /* opened with O_DIRECT */
	int in_fd;   /* what the host says of pieces */
	int out_fd;  /* what we say */
	struct guest_window count;
	char *bytes; /* a slot of our own memory, on a page's border */
};

/* The descriptors are borrowed. */
int window_init(struct window *w, int disk_fd, int in_fd, int out_fd, struct err *err) must_check;
void window_fini(struct window *w);

/* The next piece, good until the next call; none: the host has no more. For unpack_stream(). */
int window_receive(void *window, struct str *ret, struct err *err) must_check;
/* 1 to GUEST_WINDOW_SLOT bytes; whole blocks, on a block's border, save for the last. For pack_stream(). */
int window_send(void *window, struct str bytes, struct err *err) must_check;
