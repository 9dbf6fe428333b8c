#include "logs/needle.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* The bit in which the two cases of a letter differ; 0 for what has one form only. */
static unsigned char case_bit(const struct needle *n, char c)
{
	unsigned lower = (unsigned char)c | 0x20U;

	return n->any_case && lower - 'a' < 26 ? 0x20 : 0;
}

static bool stands_at(const struct needle *n, const char *at)
{
	if (!n->any_case)
		return memcmp(at, n->text.data, n->text.len) == 0;
	for (size_t i = 0; i < n->text.len; i++) {
		unsigned bit = case_bit(n, n->text.data[i]);
		if (((unsigned char)at[i] | bit) != ((unsigned char)n->text.data[i] | bit))
			return false;
	}
	return true;
}

static const char *find_plainly(const struct needle *n, struct str hay)
{
	for (size_t i = 0; i + n->text.len <= hay.len; i++) {
		if (stands_at(n, hay.data + i))
			return hay.data + i;
	}
	return NULL;
}

#ifdef __SSE2__
enum { WIDTH = 16 };

/* One byte of the text, looked for in all places at once. */
struct probe {
	size_t offset;
	__m128i bit;
	__m128i byte;
};

static struct probe probe_of(const struct needle *n, size_t offset)
{
	unsigned char bit = case_bit(n, n->text.data[offset]);
	unsigned char byte = (unsigned char)n->text.data[offset] | bit;

	return (struct probe){offset, _mm_set1_epi8((char)bit), _mm_set1_epi8((char)byte)};
}

static __m128i probe_at(const struct probe *p, const char *at)
{
	__m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(at + p->offset));

	return _mm_cmpeq_epi8(_mm_or_si128(bytes, p->bit), p->byte);
}

/* Of 16 places only those are looked at where the first and the last byte both fit: hardly any, in text. */
const char *needle_find(const struct needle *n, struct str hay)
{
	size_t i = 0;

	if (hay.len < n->text.len || n->text.len == 0)
		return n->text.len > 0 ? NULL : "";
	struct probe first = probe_of(n, 0);
	struct probe last = probe_of(n, n->text.len - 1);
	for (; i + n->text.len - 1 + WIDTH <= hay.len; i += WIDTH) {
		const char *at = hay.data + i;
		__m128i both = _mm_and_si128(probe_at(&first, at), probe_at(&last, at));
		for (unsigned fits = (unsigned)_mm_movemask_epi8(both); fits != 0; fits &= fits - 1) {
			const char *place = at + __builtin_ctz(fits);
			if (stands_at(n, place))
				return place;
		}
	}
	return find_plainly(n, (struct str){hay.data + i, hay.len - i});
}
#else
const char *needle_find(const struct needle *n, struct str hay)
{
	if (hay.len < n->text.len || n->text.len == 0)
		return n->text.len > 0 ? NULL : "";
	if (!n->any_case)
		return memmem(hay.data, hay.len, n->text.data, n->text.len);
	return find_plainly(n, hay);
}
#endif
