/* What a VM sends into its network: nothing that is passed on goes to the host itself. */
#include <assert.h>

#include "fuzz.h"
#include "proto/ethernet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = {(const char *)data, size}, frame = {NULL, 0};
	struct err err = {0};

	while (ethernet_next(rest, &frame, &err) > 0) {
		assert(frame.data == rest.data + ETHERNET_LENGTH_SIZE && frame.len <= ETHERNET_FRAME_MAX);
		if (ethernet_allowed(frame, 0x0a00020f) && frame.data[12] == 8 && frame.data[13] == 0)
			assert(frame.data[30] != 127 && frame.data[30] != 0);
		rest.data += ETHERNET_LENGTH_SIZE + frame.len;
		rest.len -= ETHERNET_LENGTH_SIZE + frame.len;
	}
	return 0;
}
