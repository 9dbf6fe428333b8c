#include "model/labels.h"

#include <stdlib.h>

#include "base/buf.h"

/* Every agent is a Nimbus agent, and offers what GitHub says of every runner of its kind by itself. */
static const char *const implied_labels[] = {"nimbus", "self-hosted", "linux", "x64"};

int label_check(struct str label, struct err *err)
{
	bool ok =
		label.len > 0 && label.len <= LABEL_MAX_BYTES && str_is_utf8(label) && str_trim(label).len == label.len;

	for (size_t i = 0; ok && i < label.len; i++) {
		unsigned char c = (unsigned char)label.data[i];
		ok = c >= ' ' && c != 0x7f && c != ',';
	}
	if (!ok)
		return err_set(
			err, ERR_INVALID_FIELD,
			"labels: '%.*s' is not a label: 1 to %d bytes of text, no comma or control character, no "
			"white space at its ends",
			(int)(label.len > 80 ? 80 : label.len), label.data != NULL ? label.data : "", LABEL_MAX_BYTES);
	return 0;
}

static char *lower(struct str label, struct arena *arena)
{
	char *copy = arena_str(arena, label);

	for (char *c = copy; *c != '\0'; c++) {
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	}
	return copy;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void sort_and_dedupe(struct label_set *set)
{
	size_t kept = 0;

	if (set->count > 1)
		qsort(set->items, set->count, sizeof(set->items[0]), compare);
	for (size_t i = 0; i < set->count; i++) {
		if (kept == 0 || strcmp(set->items[kept - 1], set->items[i]) != 0)
			set->items[kept++] = set->items[i];
	}
	set->count = kept;
}

int label_set_make(const char *const *labels, size_t count, struct arena *arena, struct label_set *ret, struct err *err)
{
	if (count > LABEL_SET_MAX)
		return err_set(err, ERR_INVALID_FIELD, "labels: at most %d, not %zu", LABEL_SET_MAX, count);
	struct label_set set = {arena_calloc(arena, count, sizeof(char *)), count};
	for (size_t i = 0; i < count; i++) {
		int rc = label_check(str_c(labels[i]), err);
		if (rc < 0)
			return rc;
		set.items[i] = lower(str_c(labels[i]), arena);
	}
	sort_and_dedupe(&set);
	*ret = set;
	return 0;
}

bool label_set_has(const struct label_set *set, const char *lower_case_label)
{
	return set->count > 0 &&
	       bsearch(&lower_case_label, set->items, set->count, sizeof(set->items[0]), compare) != NULL;
}

static bool implied(const char *label)
{
	for (size_t i = 0; i < ARRAY_LEN(implied_labels); i++) {
		if (strcmp(label, implied_labels[i]) == 0)
			return true;
	}
	return false;
}

bool label_set_covers(const struct label_set *offer, const struct label_set *wanted)
{
	for (size_t i = 0; i < wanted->count; i++) {
		if (!implied(wanted->items[i]) && !label_set_has(offer, wanted->items[i]))
			return false;
	}
	return true;
}

char *label_set_key(const struct label_set *set, struct arena *arena)
{
	autovar(buf) key = {0};

	for (size_t i = 0; i < set->count; i++) {
		if (i > 0)
			buf_putc(&key, ',');
		buf_puts(&key, set->items[i]);
	}
	return arena_str(arena, buf_str(&key));
}

int label_set_from_key(struct str key, struct arena *arena, struct label_set *ret, struct err *err)
{
	const char *items[LABEL_SET_MAX] = {0};
	size_t count = 0;

	while (key.len > 0 && count < LABEL_SET_MAX)
		items[count++] = arena_str(arena, str_cut(&key, ','));
	if (key.len > 0)
		return err_set(err, ERR_INTERNAL, "a stored label set has more than %d labels", LABEL_SET_MAX);
	return label_set_make(items, count, arena, ret, err);
}
