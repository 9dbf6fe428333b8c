/*
 * How wide text stands on a terminal: an East Asian character takes two columns, a combining one none.
 */
#pragma once

#include <stddef.h>

#include "base/compiler.h"
#include "base/str.h"

/* Columns of one character: its length in bytes is given by str_utf8_step(). -1 where it would steer the terminal: a
 * control character, or one that turns the direction of writing. */
int width_of_character(struct str character) must_check;
/* Columns of a whole text; what is no character, or a control, counts as one. */
size_t width_of_text(struct str text) must_check;
/* How many bytes of the text fit into so many columns. */
size_t width_cut(struct str text, size_t columns) must_check;
