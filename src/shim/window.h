/*
 * The host's side of a VM's window (proto/guest_window.h): bytes into it and out of it, and what is to be said to the
 * guest, on the archive's stream. The guest is hostile: the window's bytes are nothing but bytes, and what it says of
 * them is checked.
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "proto/guest_window.h"

struct window {
	int fd; /* borrowed */
	struct guest_window count;
	size_t done; /* bytes of the piece that is put in or taken out */
};

/* For one archive. */
void window_begin(struct window *w, int fd);
/* The host needs its memory no more. */
void window_free_memory(const struct window *w);

/* --- into the guest --- */

/* How many bytes window_put() takes. */
size_t window_room(const struct window *w);
int window_put(struct window *w, struct str bytes, struct buf *say, struct err *err) must_check;
/* There are no more: what waits to be a whole piece is one. */
void window_finish(struct window *w, struct buf *say);
/* What the guest says meanwhile. Negative: it lies. */
int window_returned(struct window *w, struct str bytes, struct err *err) must_check;

/* --- out of the guest --- */

/* What it says. Negative: it lies. */
int window_came(struct window *w, struct str bytes, struct err *err) must_check;
/* How many bytes, at most `cap`; 0: none are there. */
ptrdiff_t window_get(struct window *w, char *to, size_t cap, struct buf *say, struct err *err) must_check;
