/* Values and text that a job chooses: "value \n value \n\n text", the text cut where its own bytes say. The output must
 * not depend on the cuts, and holds no value. */
#include <assert.h>
#include <string.h>

#include "auth/masker.h"
#include "fuzz.h"

enum { INPUT_MAX = 4096, VALUES_MAX = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = {(const char *)data, size < INPUT_MAX ? size : INPUT_MAX};
	autoptr(masker) m = masker_new();
	autoptr(masker_stream) s = masker_stream_new(m);
	autovar(buf) pieces = {0};
	autovar(buf) whole = {0};
	struct str values[VALUES_MAX];
	size_t count = 0;

	while (rest.data != NULL && count < VALUES_MAX) {
		struct str value = str_cut(&rest, '\n');

		if (value.len == 0)
			break;
		if (masker_add(m, value, NULL) == 0)
			values[count++] = value;
	}
	if (rest.data == NULL)
		return 0;
	masker_apply(m, rest, &whole);
	for (size_t at = 0; at < rest.len;) {
		size_t len = 1 + (unsigned char)rest.data[at] % 7;

		if (len > rest.len - at)
			len = rest.len - at;
		masker_feed(s, (struct str){rest.data + at, len}, &pieces);
		at += len;
	}
	masker_flush(s, &pieces);
	assert(str_eq(buf_str(&whole), buf_str(&pieces)));
	for (size_t i = 0; i < count; i++)
		if (memchr(values[i].data, '*', values[i].len) == NULL)
			assert(whole.len == 0 || memmem(whole.data, whole.len, values[i].data, values[i].len) == NULL);
	return 0;
}
