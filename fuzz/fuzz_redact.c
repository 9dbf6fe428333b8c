/* Text for strangers: whatever stands before them, what is known and what looks like a secret is gone. What is a secret
 * by what stands around it only may be in the input without that, and stays. */
#include <assert.h>
#include <string.h>

#include "cli/redact.h"
#include "fuzz.h"

static bool holds(const struct buf *text, const char *part)
{
	return text->len > 0 && memmem(text->data, text->len, part, strlen(part)) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(masker) known = masker_new();
	autovar(buf) input = {0};
	autovar(buf) text = {0};
	autovar(buf) out = {0};

	assert(masker_add(known, STR("hunter2hunter2"), NULL) == 0);
	buf_append(&input, data, size);
	buf_append(&text, data, size);
	buf_puts(&text, "\nhunter2hunter2\nAuthorization: Bearer tok-tok-tok\nx eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.\n"
			"dsn postgresql://nimbus:passw0rd@db/nimbus\n");
	redact(known, buf_str(&text), &out);
	assert(!holds(&out, "hunter2hunter2"));
	assert(!holds(&out, "Bearer tok-tok-tok") || holds(&input, "Bearer tok-tok-tok"));
	assert(!holds(&out, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0"));
	assert(!holds(&out, "nimbus:passw0rd@") || holds(&input, "nimbus:passw0rd@"));
	return 0;
}
