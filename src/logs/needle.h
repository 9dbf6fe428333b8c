/*
 * Finding one text in many bytes, at the speed of memory: what a search does to every unpacked block before it looks
 * at a single line.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/str.h"

struct needle {
	struct str text; /* borrowed; empty: is everywhere */
	bool any_case;	 /* of ASCII letters */
};

/* The first place, or NULL. Of an empty text, somewhere. */
const char *needle_find(const struct needle *n, struct str hay) must_check;
