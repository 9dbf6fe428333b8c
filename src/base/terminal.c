#include "base/terminal.h"

/* ESC [ digits ; : m (ECMA-48, 8.3.117). Its length, or 0. */
static size_t colour_length(struct str s)
{
	static const char parameters[] = "0123456789;:";

	if (!str_starts_with(s, STR("\x1b[")))
		return 0;
	for (size_t i = 2; i < s.len && i < TERMINAL_SGR_MAX; i++) {
		if (s.data[i] == 'm')
			return i + 1;
		if (memchr(parameters, s.data[i], sizeof(parameters) - 1) == NULL)
			return 0;
	}
	return 0;
}

/* U+0080 to U+009F: what ESC and a letter say, in one character. */
static bool is_c1(const unsigned char *c, size_t len)
{
	return len == 2 && c[0] == 0xc2 && c[1] < 0xa0;
}

static void put_control(unsigned char c, struct buf *out)
{
	if (c == '\t' || c == '\n') {
		buf_putc(out, (char)c);
	} else if (c < 0x80) {
		buf_putc(out, '^');
		buf_putc(out, (char)(c ^ 0x40));
	} else {
		buf_printf(out, "\\x%02x", c);
	}
}

bool terminal_clean(struct str text, bool colours, struct buf *out)
{
	bool coloured = false;

	if (str_ends_with(text, STR("\r")))
		text.len--;
	while (text.len > 0) {
		const unsigned char *c = (const unsigned char *)text.data;
		size_t len = colours ? colour_length(text) : 0;

		coloured = coloured || len > 0;
		if (len == 0)
			len = str_utf8_step(text);
		if (len == 0) {
			put_control(*c, out); /* no text at all */
			len = 1;
		} else if (len == 1 && (*c < ' ' || *c == 0x7f)) {
			put_control(*c, out);
		} else if (is_c1(c, len)) {
			put_control(c[1], out);
		} else {
			buf_append(out, c, len);
		}
		text.data += len;
		text.len -= len;
	}
	return coloured;
}
