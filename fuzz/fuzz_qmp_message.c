/* What a QEMU says that a guest has taken over. */
#include <assert.h>

#include "fuzz.h"
#include "proto/qmp_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autovar(qmp_message) m = {0};

	if (qmp_message_decode((struct str){(const char *)data, size}, &m, NULL) < 0)
		return 0;
	assert(m.tree != NULL && m.text != NULL);
	(void)js_text(js_get(m.data, "action"), "");
	return 0;
}
