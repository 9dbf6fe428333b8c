#include "proto/ethernet.h"

enum {
	HEADER_SIZE = 14,
	TYPE_AT = 12,
	TYPE_IPV4 = 0x0800,
	TYPE_ARP = 0x0806,
	IPV4_SIZE = 20, /* without options */
	SOURCE_AT = HEADER_SIZE + 12,
	TARGET_AT = HEADER_SIZE + 16,
};

static uint32_t number_at(struct str s, size_t at, unsigned bytes)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value = value << 8 | (unsigned char)s.data[at + i];
	return value;
}

int ethernet_next(struct str bytes, struct str *ret, struct err *err)
{
	if (bytes.len < ETHERNET_LENGTH_SIZE)
		return 0;
	uint32_t len = number_at(bytes, 0, ETHERNET_LENGTH_SIZE);
	if (len == 0 || len > ETHERNET_FRAME_MAX)
		return err_set(err, ERR_INVALID, "the VM sent a frame of %u bytes", len);
	if (bytes.len - ETHERNET_LENGTH_SIZE < len)
		return 0;
	*ret = (struct str){bytes.data + ETHERNET_LENGTH_SIZE, len};
	return 1;
}

static bool is_another_machine(uint32_t address)
{
	uint32_t first = address >> 24;

	return first != 0 && first != 127 && first < 224;
}

bool ethernet_allowed(struct str frame, uint32_t address)
{
	if (frame.len < HEADER_SIZE)
		return false;
	if (number_at(frame, TYPE_AT, 2) == TYPE_ARP)
		return true;
	return number_at(frame, TYPE_AT, 2) == TYPE_IPV4 && frame.len >= HEADER_SIZE + IPV4_SIZE &&
	       number_at(frame, HEADER_SIZE, 1) >> 4 == 4 && number_at(frame, SOURCE_AT, 4) == address &&
	       is_another_machine(number_at(frame, TARGET_AT, 4));
}
