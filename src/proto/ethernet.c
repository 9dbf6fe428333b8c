#include "proto/ethernet.h"

#include <string.h>

enum {
	HEADER_SIZE = 14,
	MAC_AT = 6, /* of the sender */
	TYPE_AT = 12,
	TYPE_IPV4 = 0x0800,
	TYPE_ARP = 0x0806,
	IPV4_SIZE = 20, /* without options */
	FRAGMENT_AT = HEADER_SIZE + 6,
	PROTOCOL_AT = HEADER_SIZE + 9,
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
static const struct kept_back {
	uint32_t address;
	unsigned bits;
	bool machine; /* whoever asks for it may be told */
} kept_back[] = {
	{0x00000000, 8, false}, /* this host */
	{0x7f000000, 8, false}, /* its loopback */
	{0xe0000000, 3, false}, /* groups, and what is for nobody: 224.0.0.0 and above */
	{0xa9fe0000, 16, true}, /* 169.254.0.0: link-local, and most clouds' metadata */
	{0xa83f8110, 32, true}, /* 168.63.129.16: Azure's */
	{0x646464c8, 32, true}, /* 100.100.100.200: Alibaba Cloud's */
	{0xc00000c0, 32, true}, /* 192.0.0.192: Oracle Cloud's */
};

/* NULL: it is another machine's for certain. */
static const struct kept_back *why_not(uint32_t address)
{
	for (size_t i = 0; i < sizeof(kept_back) / sizeof(kept_back[0]); i++) {
		if ((address ^ kept_back[i].address) >> (32 - kept_back[i].bits) == 0)
			return &kept_back[i];
	}
	return NULL;
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

static bool is_own_ipv4(struct str frame, const struct ethernet_guest *guest)
{
	return frame.len >= HEADER_SIZE + IPV4_SIZE && is_own_mac(frame, MAC_AT, guest) &&
	       number_at(frame, TYPE_AT, 2) == TYPE_IPV4 && number_at(frame, HEADER_SIZE, 1) >> 4 == 4 &&
	       number_at(frame, SOURCE_AT, 4) == guest->address;
}

bool ethernet_allowed(struct str frame, const struct ethernet_guest *guest)
{
	if (frame.len < HEADER_SIZE || !is_own_mac(frame, MAC_AT, guest))
		return false;
	if (number_at(frame, TYPE_AT, 2) == TYPE_ARP)
		return is_own_arp(frame, guest);
	return is_own_ipv4(frame, guest) && why_not(number_at(frame, TARGET_AT, 4)) == NULL;
}

/* --- a refusal --- */

enum {
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	ICMP_SIZE = 8,
	QUOTED_SIZE = 8, /* of what follows the header of the packet that is refused */
	UNREACHABLE = 3,
	PROHIBITED = 13,
	FRAGMENT_OFFSET = 0x1fff,
	HOPS = 64,
};

static void put(struct buf *out, uint64_t value, unsigned bytes)
{
	while (bytes-- > 0)
		buf_putc(out, (char)(value >> (8 * bytes)));
}

/* RFC 1071, of what begins at `from`, into the two bytes at `at`, which are 0. */
static void put_checksum(struct buf *out, size_t from, size_t size, size_t at)
{
	struct str bytes = {out->data, out->len};
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < size; i += 2)
		sum += number_at(bytes, from + i, 2);
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	out->data[at] = (char)(~sum >> 8);
	out->data[at + 1] = (char)~sum;
}

/* Nobody is told of what he was told, nor of a piece whose beginning he was. */
static bool is_to_be_told(struct str frame, const struct ethernet_guest *guest)
{
	if (!is_own_ipv4(frame, guest))
		return false;
	const struct kept_back *why = why_not(number_at(frame, TARGET_AT, 4));
	uint32_t protocol = number_at(frame, PROTOCOL_AT, 1);
	return why != NULL && why->machine && (protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP) &&
	       (number_at(frame, FRAGMENT_AT, 2) & FRAGMENT_OFFSET) == 0;
}

void ethernet_refuse(struct str frame, const struct ethernet_guest *guest, struct buf *out)
{
	if (!is_to_be_told(frame, guest))
		return;
	size_t header = (size_t)(number_at(frame, HEADER_SIZE, 1) & 15) * 4;
	size_t quoted = header + QUOTED_SIZE, size = IPV4_SIZE + ICMP_SIZE + quoted;
	if (header < IPV4_SIZE || frame.len < HEADER_SIZE + quoted)
		return;
	put(out, HEADER_SIZE + size, ETHERNET_LENGTH_SIZE);
	buf_append(out, guest->mac, ETHERNET_MAC_SIZE);
	buf_append(out, frame.data, ETHERNET_MAC_SIZE); /* of the gateway, to which it went */
	put(out, TYPE_IPV4, 2);
	size_t ip = out->len;
	put(out, 0x4500, 2);
	put(out, size, 2);
	put(out, 0, 4); /* not a piece of anything */
	put(out, HOPS << 8 | PROTOCOL_ICMP, 2);
	put(out, 0, 2);
	put(out, number_at(frame, TARGET_AT, 4), 4);
	put(out, guest->address, 4);
	put_checksum(out, ip, IPV4_SIZE, ip + 10);
	size_t icmp = out->len;
	put(out, UNREACHABLE << 8 | PROHIBITED, 2);
	put(out, 0, 2 + 4);
	buf_append(out, frame.data + HEADER_SIZE, quoted);
	put_checksum(out, icmp, ICMP_SIZE + quoted, icmp + 2);
}
