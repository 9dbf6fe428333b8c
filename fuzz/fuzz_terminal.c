/* A line of a job's output on a terminal: what comes out has no control but tab, line feed and colours. */
#include <assert.h>
#include <string.h>

#include "base/terminal.h"
#include "fuzz.h"

/* ESC [ digits ; : m, and not longer than a colour may be. */
static size_t colour(const char *at, size_t len)
{
	size_t n = len > 2 && at[1] == '[' ? 2 : len;

	while (n < len && strchr("0123456789;:", at[n]) != NULL && at[n] != '\0')
		n++;
	return n < len && n < TERMINAL_SGR_MAX && at[n] == 'm' ? n + 1 : 0;
}

static void check(struct str text, bool colours)
{
	autovar(buf) out = {0};
	bool seen = false;

	bool coloured = terminal_clean(text, colours, &out);
	assert(out.len <= text.len * TERMINAL_GROWTH);
	assert(str_is_utf8(buf_str(&out)));
	for (size_t i = 0; i < out.len; i++) {
		unsigned char c = (unsigned char)out.data[i];
		size_t len = c == 0x1b ? colour(out.data + i, out.len - i) : 0;
		assert(len > 0 || (c >= ' ' && c != 0x7f) || c == '\t' || c == '\n');
		assert(c != 0xc2 || i + 1 == out.len || (unsigned char)out.data[i + 1] >= 0xa0);
		seen = seen || len > 0;
	}
	assert(seen == coloured && (colours || !seen));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check((struct str){(const char *)data, size}, true);
	check((struct str){(const char *)data, size}, false);
	return 0;
}
