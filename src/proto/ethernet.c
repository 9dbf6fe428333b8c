#include "proto/ethernet.h"

#include <string.h>

enum {
	HEADER_SIZE = 14,
	MAC_AT = 6, /* of the sender */
	TYPE_AT = 12,
	TYPE_IPV4 = 0x0800,
	TYPE_ARP = 0x0806,
	IPV4_SIZE = 20, /* without options */
	SOURCE_AT = HEADER_SIZE + 12,
	TARGET_AT = HEADER_SIZE + 16,
	ARP_SIZE = 28,
	ARP_MAC_AT = HEADER_SIZE + 8, /* of the sender, again */
	ARP_SOURCE_AT = HEADER_SIZE + 14,
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

/* Nobody's but the host's own, and, where it is a machine of a cloud, those of what tells it who it is. */
static const struct {
	uint32_t address;
	unsigned bits;
} kept_back[] = {
	{0x00000000, 8},  /* this host */
	{0x7f000000, 8},  /* its loopback */
	{0xe0000000, 3},  /* groups, and what is for nobody: 224.0.0.0 and above */
	{0xa9fe0000, 16}, /* 169.254.0.0: link-local, and most clouds' metadata */
	{0xa83f8110, 32}, /* 168.63.129.16: Azure's */
	{0x646464c8, 32}, /* 100.100.100.200: Alibaba Cloud's */
	{0xc00000c0, 32}, /* 192.0.0.192: Oracle Cloud's */
};

static bool is_another_machine(uint32_t address)
{
	for (size_t i = 0; i < sizeof(kept_back) / sizeof(kept_back[0]); i++) {
		if ((address ^ kept_back[i].address) >> (32 - kept_back[i].bits) == 0)
			return false;
	}
	return true;
}

static bool is_own_mac(struct str frame, size_t at, const struct ethernet_guest *guest)
{
	return memcmp(frame.data + at, guest->mac, ETHERNET_MAC_SIZE) == 0;
}

/* Whoever looks whether an address is free says none. */
static bool is_own_arp(struct str frame, const struct ethernet_guest *guest)
{
	if (frame.len < HEADER_SIZE + ARP_SIZE || !is_own_mac(frame, ARP_MAC_AT, guest))
		return false;
	uint32_t source = number_at(frame, ARP_SOURCE_AT, 4);
	return source == guest->address || source == 0;
}

bool ethernet_allowed(struct str frame, const struct ethernet_guest *guest)
{
	if (frame.len < HEADER_SIZE || !is_own_mac(frame, MAC_AT, guest))
		return false;
	if (number_at(frame, TYPE_AT, 2) == TYPE_ARP)
		return is_own_arp(frame, guest);
	return number_at(frame, TYPE_AT, 2) == TYPE_IPV4 && frame.len >= HEADER_SIZE + IPV4_SIZE &&
	       number_at(frame, HEADER_SIZE, 1) >> 4 == 4 && number_at(frame, SOURCE_AT, 4) == guest->address &&
	       is_another_machine(number_at(frame, TARGET_AT, 4));
}
