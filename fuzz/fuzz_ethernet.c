/* What a VM sends into its network: nothing that is passed on goes to the host itself. */
#include <assert.h>
#include <string.h>

#include "fuzz.h"
#include "proto/ethernet.h"

static const struct ethernet_guest guest = {.mac = {2, 2, 2, 2, 2, 2}, .address = 0x0a00020f};

static struct str after(struct str rest, struct str frame)
{
	return (struct str){frame.data + frame.len, rest.len - ETHERNET_LENGTH_SIZE - frame.len};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = {(const char *)data, size}, frame = {NULL, 0};
	struct err err = {0};

	for (; ethernet_next(rest, &frame, &err) > 0; rest = after(rest, frame)) {
		assert(frame.data == rest.data + ETHERNET_LENGTH_SIZE && frame.len <= ETHERNET_FRAME_MAX);
		if (!ethernet_allowed(frame, &guest)) {
			autovar(buf) out = {0};
			struct str answer = {NULL, 0};
			ethernet_refuse(frame, &guest, &out);
			assert(out.len == 0 || (ethernet_next(buf_str(&out), &answer, &err) == 1 &&
						answer.len == out.len - ETHERNET_LENGTH_SIZE && answer.len <= 110));
			continue;
		}
		assert(memcmp(frame.data + 6, guest.mac, ETHERNET_MAC_SIZE) == 0);
		if (frame.data[13] == 0)
			assert(frame.data[30] != 127 && frame.data[30] != 0 &&
			       memcmp(frame.data + 30, "\xa9\xfe", 2) != 0);
	}
	return 0;
}
