/*
 * Text of others on somebody's terminal: whatever could steer it (titles, cursor moves, the 8-bit controls) is made
 * visible instead, as ^[ or \x9b; colours (SGR) may pass.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/str.h"

enum {
	TERMINAL_SGR_MAX = 64, /* a longer one is no colour */
	TERMINAL_GROWTH = 4,   /* no byte becomes more than so many */
};
#define TERMINAL_SGR_RESET "\x1b[0m"

/* Appends the text. Tabs and line feeds stay, and a carriage return at its end goes away. Gives whether a colour has
 * passed, so that the caller can end it with TERMINAL_SGR_RESET. */
bool terminal_clean(struct str text, bool colours, struct buf *out);
