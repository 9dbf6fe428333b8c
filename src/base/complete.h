/*
 * Completion from the rows of the command table: what may stand where somebody presses Tab. Commands, flags and words
 * that are written out in the table are offered here; for the rest it says what it would be ("IMAGE"), and who knows
 * offers it.
 */
#pragma once

#include "base/command.h"

struct completion_item {
	const char *value;
	const char *about; /* a few words, or NULL */
};

struct completion {
	struct arena *arena;
	struct completion_item *items;
	size_t count;
	const char *placeholder; /* what the value is called in the table, of an argument or a flag; or NULL */
	const char *before;	 /* stands before each value: "--image=", or "" */
	struct str begun;	 /* of the value */
};

/* The words after the program's name; the last is the one under the cursor, empty where it is not begun. */
void complete(const struct command_program *program, const char *const *words, size_t count, struct arena *arena,
	      struct completion *ret);
/* Adds what begins as the value does; copies. */
void complete_offer(struct completion *c, const char *value, const char *about);
