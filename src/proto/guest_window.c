#include "proto/guest_window.h"

#include <assert.h>
#include <string.h>

bool guest_window_full(const struct guest_window *w)
{
	return w->count == GUEST_WINDOW_SLOTS;
}

static size_t last(const struct guest_window *w)
{
	return (w->first + w->count) % GUEST_WINDOW_SLOTS;
}

size_t guest_window_next(const struct guest_window *w)
{
	assert(!guest_window_full(w));
	return last(w) * GUEST_WINDOW_SLOT;
}

static void add(struct guest_window *w, uint32_t len)
{
	w->len[last(w)] = len;
	w->count++;
}

static uint32_t remove_first(struct guest_window *w)
{
	uint32_t len = w->len[w->first];

	assert(w->count > 0);
	w->first = (w->first + 1) % GUEST_WINDOW_SLOTS;
	w->count--;
	return len;
}

void guest_window_put(struct guest_window *w, uint32_t len, struct buf *said)
{
	assert(!guest_window_full(w) && len > 0 && len <= GUEST_WINDOW_SLOT);
	add(w, len);
	buf_put_u32(said, len);
}

/* Words may come in parts. */
static bool next_word(struct guest_window *w, struct str *bytes, uint32_t *ret)
{
	while (w->have < GUEST_WINDOW_WORD && bytes->len > 0) {
		w->word[w->have++] = (unsigned char)*bytes->data++;
		bytes->len--;
	}
	if (w->have < GUEST_WINDOW_WORD)
		return false;
	w->have = 0;
	*ret = (uint32_t)w->word[0] | (uint32_t)w->word[1] << 8 | (uint32_t)w->word[2] << 16 |
	       (uint32_t)w->word[3] << 24;
	return true;
}

int guest_window_returned(struct guest_window *w, struct str bytes, struct err *err)
{
	uint32_t len;

	while (next_word(w, &bytes, &len)) {
		if (w->count == 0 || w->len[w->first] != len)
			return err_set(err, ERR_INVALID, "a piece of %u bytes came back that was not given", len);
		(void)remove_first(w);
	}
	return 0;
}

int guest_window_came(struct guest_window *w, struct str bytes, struct err *err)
{
	uint32_t len;

	while (next_word(w, &bytes, &len)) {
		if (len == 0 || len > GUEST_WINDOW_SLOT)
			return err_set(err, ERR_INVALID, "a piece of %u bytes is none", len);
		if (guest_window_full(w))
			return err_set(err, ERR_INVALID, "more pieces came than there is room for");
		add(w, len);
	}
	return 0;
}

bool guest_window_first(const struct guest_window *w, struct guest_piece *ret)
{
	if (w->count == 0)
		return false;
	*ret = (struct guest_piece){.at = w->first * GUEST_WINDOW_SLOT, .len = w->len[w->first]};
	return true;
}

void guest_window_taken(struct guest_window *w, struct buf *said)
{
	buf_put_u32(said, remove_first(w));
}
