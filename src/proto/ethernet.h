/*
 * What a VM may send into its network: Ethernet frames, each with its length before it, as QEMU's streams carry them
 * (u32, big-endian). Any bytes may come.
 *
 * Who carries them opens the host's own sockets, so an address that means the host itself would reach it: a guest's
 * kernel sends nothing to 127.0.0.1 over a device, but its root can make it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum {
	ETHERNET_LENGTH_SIZE = 4,
	ETHERNET_MAC_SIZE = 6,
	ETHERNET_FRAME_MAX = 65536 + 4096, /* QEMU's own limit */
};

/* 1: *ret is the first frame of `bytes`, without its length. 0: it is not whole. Negative: it never will be. */
int ethernet_next(struct str bytes, struct str *ret, struct err *err) must_check;
/* Who the guest is: what it was told with its identity, so that nothing is sent by another's, nor by that of the
 * template from which it was cloned. */
struct ethernet_guest {
	unsigned char mac[ETHERNET_MAC_SIZE];
	uint32_t address;
};

/* ARP of this guest, and IPv4 from it to an address that is another machine's for certain: not loopback, not "this
 * host", no group; nor a link-local one, nor another where clouds tell a machine its credentials. */
bool ethernet_allowed(struct str frame, const struct ethernet_guest *guest);
/* For a frame that was not: where it is for a machine that is only kept back, appends the frame, with its length, by
 * which the guest's kernel learns it at once (RFC 792, RFC 1812: communication administratively prohibited). */
void ethernet_refuse(struct str frame, const struct ethernet_guest *guest, struct buf *out);
