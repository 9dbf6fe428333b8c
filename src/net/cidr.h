/*
 * Addresses and the networks that they are in: "10.0.0.0/8", "192.0.2.7", "2001:db8::/32". IPv4 is kept as it is mapped
 * into IPv6, so that "::ffff:10.1.2.3" and "10.1.2.3" are the same. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct sockaddr_storage;

struct address {
	unsigned char bytes[16];
};

struct cidr {
	struct address base;
	unsigned bits; /* of 128; IPv4's prefix and 96 */
};

/* Numeric, without a port, without a zone. ERR_INVALID. */
int address_parse(struct str text, struct address *ret, struct err *err) must_check;
/* False for what is neither IPv4 nor IPv6. */
bool address_of(const struct sockaddr_storage *peer, struct address *ret);
enum { ADDRESS_TEXT_MAX = 46 };
void address_write(const struct address *a, char text[ADDRESS_TEXT_MAX]);
bool address_is_loopback(const struct address *a);

/* An address alone is a network of one. ERR_INVALID, also where bits are set beyond the prefix. */
int cidr_parse(struct str text, struct cidr *ret, struct err *err) must_check;
bool cidr_has(const struct cidr *c, const struct address *a);

/* A list as a variable has it. "unix" stands for peers over unix sockets. */
struct cidr_list {
	struct cidr *items;
	size_t count;
	bool unix_peers;
};
/* `name` is the variable that the message blames. */
int cidr_list_parse(const char *const *texts, size_t count, const char *name, struct cidr_list *ret, struct err *err)
	must_check;
void cidr_list_fini(struct cidr_list *l);
AUTOVAR_DEFINE(cidr_list)
bool cidr_list_has(const struct cidr_list *l, const struct address *a);
