/*
 * Labels: what a job asks for (runs-on) and what an agent offers. A job goes to an agent that offers all of its labels.
 * Compared without regard to ASCII case, kept in lower case. Every agent offers `nimbus`,
 * and with it `self-hosted`, `linux` and `x64`, as every runner of GitHub on such a machine does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum { LABEL_MAX_BYTES = 256, LABEL_SET_MAX = 100 };

/* Sorted, no doubles, lower case. The strings belong to the arena that made it. */
struct label_set {
	const char **items;
	size_t count;
};

/* 1 to 256 bytes of UTF-8 without control characters, comma or white space at the ends. */
int label_check(struct str label, struct err *err) must_check;
/* ERR_INVALID_FIELD names the bad label; at most 100. */
int label_set_make(const char *const *labels, size_t count, struct arena *arena, struct label_set *ret, struct err *err)
	must_check;
bool label_set_has(const struct label_set *set, const char *lower_case_label);
/* Does `offer` hold all of `wanted`? What every agent offers counts as held. */
bool label_set_covers(const struct label_set *offer, const struct label_set *wanted);
/* The set as one string (joined by commas), and back: its key in the database. */
char *label_set_key(const struct label_set *set, struct arena *arena) must_check;
int label_set_from_key(struct str key, struct arena *arena, struct label_set *ret, struct err *err) must_check;
