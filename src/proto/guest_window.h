/*
 * The window: a small disk of every VM that is memory of the host. Archives go through it, many times as fast as
 * through the channel: their sender puts a piece into a slot and says on the archive's stream how long it is; their
 * receiver takes it out and says so in return, whereupon the slot is free. Piece n lies in slot n % GUEST_WINDOW_SLOTS,
 * so nothing but lengths (u32, little-endian) is ever said, and each side can tell a lie of the other.
 *
 * One archive goes through it at a time, in either direction. All pieces but the last are of whole blocks, so that both
 * sides may go around their page caches. These functions keep count; the bytes are moved by who calls them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum {
	GUEST_WINDOW_SLOT = 1 << 20,
	GUEST_WINDOW_SLOTS = 4,
	GUEST_WINDOW_SIZE = GUEST_WINDOW_SLOTS * GUEST_WINDOW_SLOT,
	GUEST_WINDOW_BLOCK = 512,
	GUEST_WINDOW_WORD = 4, /* bytes of what is said of a piece */
};
/* By which the guest finds it among its disks. */
#define GUEST_WINDOW_SERIAL "nimbus-window"

/* One side's count. All zeros at first. */
struct guest_window {
	uint32_t len[GUEST_WINDOW_SLOTS]; /* of the pieces that lie in it */
	size_t first, count;
	unsigned char word[GUEST_WINDOW_WORD]; /* that has come in part */
	size_t have;
};

/* A piece and where it lies. */
struct guest_piece {
	size_t at; /* bytes from the beginning of the window */
	uint32_t len;
};

/* --- who sends --- */

bool guest_window_full(const struct guest_window *w);
/* Where the next piece belongs, in a window that is not full. */
size_t guest_window_next(const struct guest_window *w);
/* It is there: 1 to GUEST_WINDOW_SLOT bytes. What is to be said is appended. */
void guest_window_put(struct guest_window *w, uint32_t len, struct buf *said);
/* Bytes that the receiver said. ERR_INVALID: it was given no such pieces. */
int guest_window_returned(struct guest_window *w, struct str bytes, struct err *err) must_check;

/* --- who receives --- */

/* Bytes that the sender said. ERR_INVALID: no piece is so long, or there is no room for one more. */
int guest_window_came(struct guest_window *w, struct str bytes, struct err *err) must_check;
/* False: there is none. */
bool guest_window_first(const struct guest_window *w, struct guest_piece *ret);
/* The first is taken out. What is to be said is appended. */
void guest_window_taken(struct guest_window *w, struct buf *said);
