#include "base/width.h"

#include <locale.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <wchar.h>

/* Of the C library, whatever the caller's language is set to: our text is UTF-8 always. */
static locale_t utf8;
static pthread_once_t utf8_once = PTHREAD_ONCE_INIT;

static void find_utf8(void)
{
	utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

/* Of a well-formed sequence. */
static uint32_t code_point(struct str c)
{
	static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	uint32_t code = (unsigned char)c.data[0] & masks[c.len];

	for (size_t i = 1; i < c.len; i++)
		code = code << 6 | ((unsigned char)c.data[i] & 0x3f);
	return code;
}

/* Bidirectional embeddings, overrides and isolates. */
static bool turns(uint32_t code)
{
	return (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

int width_of_character(struct str character)
{
	uint32_t code = code_point(character);

	if (code < 0x20 || (code >= 0x7f && code < 0xa0) || turns(code))
		return -1;
	if (code < 0x7f)
		return 1;
	(void)pthread_once(&utf8_once, find_utf8);
	if (utf8 == (locale_t)0)
		return 1;
	locale_t before = uselocale(utf8);
	int width = wcwidth((wchar_t)code);
	(void)uselocale(before);
	return width < 0 ? 1 : width; /* newer than the C library's table */
}

/* The next piece of the text, and its columns. */
static size_t step(struct str text, size_t *ret_columns)
{
	size_t bytes = str_utf8_step(text);
	int width = bytes > 0 ? width_of_character((struct str){text.data, bytes}) : 1;

	*ret_columns = width < 0 ? 1 : (size_t)width;
	return bytes > 0 ? bytes : 1;
}

size_t width_of_text(struct str text)
{
	size_t total = 0;

	while (text.len > 0) {
		size_t columns = 0;
		size_t bytes = step(text, &columns);
		total += columns;
		text.data += bytes;
		text.len -= bytes;
	}
	return total;
}

size_t width_cut(struct str text, size_t columns)
{
	size_t used = 0;

	for (size_t left = columns; used < text.len;) {
		size_t wide = 0;
		size_t bytes = step((struct str){text.data + used, text.len - used}, &wide);
		if (wide > left)
			break;
		left -= wide;
		used += bytes;
	}
	return used;
}
