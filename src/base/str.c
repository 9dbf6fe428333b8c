#include "base/str.h"

#include <assert.h>
#include <inttypes.h>

bool str_eq(struct str a, struct str b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

uint32_t str_hash(struct str s)
{
	uint32_t hash = 2166136261U;

	for (size_t i = 0; i < s.len; i++)
		hash = (hash ^ (unsigned char)s.data[i]) * 16777619U;
	return hash;
}

bool str_starts_with(struct str s, struct str prefix)
{
	return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.data, prefix.data, prefix.len) == 0);
}

bool str_ends_with(struct str s, struct str suffix)
{
	return s.len >= suffix.len &&
	       (suffix.len == 0 || memcmp(s.data + (s.len - suffix.len), suffix.data, suffix.len) == 0);
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
	while (s.len > 0 && is_space(s.data[0])) {
		s.data++;
		s.len--;
	}
	while (s.len > 0 && is_space(s.data[s.len - 1]))
		s.len--;
	return s;
}

ptrdiff_t str_find(struct str s, char c)
{
	if (s.len == 0)
		return -1;
	const char *at = memchr(s.data, c, s.len);
	return at != NULL ? at - s.data : -1;
}

struct str str_cut(struct str *rest, char sep)
{
	ptrdiff_t at = str_find(*rest, sep);
	struct str piece = *rest;

	if (at < 0) {
		*rest = (struct str){NULL, 0};
		return piece;
	}
	piece.len = (size_t)at;
	rest->data += at + 1;
	rest->len -= (size_t)at + 1;
	return piece;
}

/* Table 3-7 of the Unicode standard. */
size_t str_utf8_step(struct str s)
{
	const unsigned char *p = (const unsigned char *)s.data;
	unsigned char low = 0x80;
	unsigned char high = 0xbf;
	size_t need = 0;

	if (s.len == 0)
		return 0;
	unsigned char lead = p[0];
	if (lead < 0x80)
		return lead != 0 ? 1 : 0;
	if (lead >= 0xc2 && lead <= 0xdf) {
		need = 2;
	} else if (lead >= 0xe0 && lead <= 0xef) {
		need = 3;
		if (lead == 0xe0)
			low = 0xa0;
		if (lead == 0xed)
			high = 0x9f;
	} else if (lead >= 0xf0 && lead <= 0xf4) {
		need = 4;
		if (lead == 0xf0)
			low = 0x90;
		if (lead == 0xf4)
			high = 0x8f;
	}
	if (need == 0 || need > s.len || p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < need; i++) {
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	}
	return need;
}

/* ASCII without NUL, eight bytes at once: what most text is. A borrow can only come from a byte that is zero. */
static bool eight_are_ascii(const char *p)
{
	const uint64_t ones = UINT64_C(0x0101010101010101);
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return ((word | (word - ones)) & (ones << 7)) == 0;
}

bool str_is_utf8(struct str s)
{
	while (s.len > 0) {
		if (s.len >= 8 && eight_are_ascii(s.data)) {
			s.data += 8;
			s.len -= 8;
			continue;
		}
		size_t step = str_utf8_step(s);
		if (step == 0)
			return false;
		s.data += step;
		s.len -= step;
	}
	return true;
}

int str_to_i64(struct str s, const char *name, int64_t min, int64_t max, int64_t *ret, struct err *err)
{
	bool negative = s.len > 0 && s.data[0] == '-';
	int64_t value = 0;
	size_t i = negative ? 1 : 0;
	bool ok = i < s.len;

	for (; ok && i < s.len; i++) {
		char c = s.data[i];
		int64_t digit = negative ? -(c - '0') : c - '0';
		ok = c >= '0' && c <= '9' && !__builtin_mul_overflow(value, 10, &value) &&
		     !__builtin_add_overflow(value, digit, &value);
	}
	if (!ok || value < min || value > max)
		return err_set(err, ERR_INVALID_FIELD, "%s: '%.*s' is not a whole number from %" PRId64 " to %" PRId64,
			       name, STR_ARG(s), min, max);
	*ret = value;
	return 0;
}
