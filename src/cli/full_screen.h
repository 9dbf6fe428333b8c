/*
 * Our terminal as one page that is drawn again and again: its other screen, without a cursor, keys as they are typed.
 * It gets its former state back whatever happens: at the end, and at exit().
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

/* Standard output, and the keys of standard input where that is a terminal too. */
int full_screen_begin(struct err *err) must_check;
/* Fine when it never began. */
void full_screen_end(void);

/* The lines of `page`, as many as the terminal has, in the place of those before. An error: the terminal is gone. */
int full_screen_draw(const struct buf *page, struct err *err) must_check;
/* 24 where the terminal does not say. */
size_t full_screen_rows(void);
