/*
 * "Did you mean ...?": the candidate nearest to what somebody typed.
 *
 *	struct suggest s = {.given = name};
 *	suggest_offer(&s, "first"); ...
 *	const char *meant = suggest_best(&s);
 */
#pragma once

#include <stddef.h>

#include "base/compiler.h"
#include "base/str.h"

struct suggest {
	struct str given;
	const char *best; /* so far; borrowed */
	size_t distance;
};

/* Edits between the two: insert, delete, replace, swap of neighbours. Case does not count. */
size_t suggest_distance(struct str a, struct str b) must_check;
void suggest_offer(struct suggest *s, const char *candidate);
/* NULL when none is near enough to be what was meant: more than a third of it wrong. */
const char *suggest_best(const struct suggest *s) must_check;
