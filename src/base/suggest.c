#include "base/suggest.h"

#include <ctype.h>

#include "base/mem.h"

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static int fold(char c)
{
	return tolower((unsigned char)c);
}

/* Optimal string alignment, by three rows. */
size_t suggest_distance(struct str a, struct str b)
{
	size_t width = b.len + 1;
	autofree size_t *cells = xcalloc(3 * width, sizeof(size_t));
	size_t *older = cells;
	size_t *old = cells + width;
	size_t *row = cells + 2 * width;

	for (size_t j = 0; j < width; j++)
		row[j] = j;
	for (size_t i = 1; i <= a.len; i++) {
		size_t *free_row = older;
		older = old;
		old = row;
		row = free_row;
		row[0] = i;
		for (size_t j = 1; j < width; j++) {
			bool same = fold(a.data[i - 1]) == fold(b.data[j - 1]);
			row[j] = least(least(old[j], row[j - 1]) + 1, old[j - 1] + (same ? 0 : 1));
			bool swapped = i > 1 && j > 1 && fold(a.data[i - 1]) == fold(b.data[j - 2]) &&
				       fold(a.data[i - 2]) == fold(b.data[j - 1]);
			if (swapped)
				row[j] = least(row[j], older[j - 2] + 1);
		}
	}
	return row[b.len];
}

void suggest_offer(struct suggest *s, const char *candidate)
{
	size_t distance = suggest_distance(s->given, str_c(candidate));

	if (s->best == NULL || distance < s->distance) {
		s->best = candidate;
		s->distance = distance;
	}
}

const char *suggest_best(const struct suggest *s)
{
	return s->best != NULL && s->distance <= s->given.len / 3 ? s->best : NULL;
}
