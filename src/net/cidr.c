#include "net/cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"

static const struct address v4_prefix = {{[10] = 0xff, [11] = 0xff}};
enum { V4_AT = 12, V4_BITS = 96, ALL_BITS = 128 };

static bool is_v4(const struct address *a)
{
	return memcmp(a->bytes, v4_prefix.bytes, V4_AT) == 0;
}

int address_parse(struct str text, struct address *ret, struct err *err)
{
	char copy[INET6_ADDRSTRLEN];
	struct address a = v4_prefix;

	if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.data, '\0', text.len) != NULL)
		return err_set(err, ERR_INVALID, "'%.*s' is not an address", text.len < 64 ? (int)text.len : 64,
			       text.len > 0 ? text.data : "");
	memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	if (inet_pton(AF_INET, copy, a.bytes + V4_AT) != 1 && inet_pton(AF_INET6, copy, a.bytes) != 1)
		return err_set(err, ERR_INVALID, "'%s' is not an address", copy);
	*ret = a;
	return 0;
}

bool address_of(const struct sockaddr_storage *peer, struct address *ret)
{
	*ret = v4_prefix;
	if (peer->ss_family == AF_INET)
		memcpy(ret->bytes + V4_AT, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
	else if (peer->ss_family == AF_INET6)
		memcpy(ret->bytes, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, sizeof(ret->bytes));
	else
		return false;
	return true;
}

void address_write(const struct address *a, char text[ADDRESS_TEXT_MAX])
{
	if (is_v4(a))
		(void)inet_ntop(AF_INET, a->bytes + V4_AT, text, ADDRESS_TEXT_MAX);
	else
		(void)inet_ntop(AF_INET6, a->bytes, text, ADDRESS_TEXT_MAX);
}

bool address_is_loopback(const struct address *a)
{
	static const struct address v6 = {{[15] = 1}};

	return is_v4(a) ? a->bytes[V4_AT] == 127 : memcmp(a, &v6, sizeof(v6)) == 0;
}

static bool same_bits(const struct address *a, const struct address *b, unsigned bits)
{
	unsigned whole = bits / 8;
	unsigned mask = 0xff00U >> bits % 8 & 0xffU;

	return memcmp(a->bytes, b->bytes, whole) == 0 &&
	       (mask == 0 || ((a->bytes[whole] ^ b->bytes[whole]) & mask) == 0);
}

static int check_base(const struct cidr *c, struct str text, struct err *err)
{
	for (unsigned bit = c->bits; bit < ALL_BITS; bit++) {
		if ((c->base.bytes[bit / 8] >> (7 - bit % 8) & 1) != 0)
			return err_set(err, ERR_INVALID, "'%.*s' is not a network: it has bits beyond its prefix",
				       STR_ARG(text));
	}
	return 0;
}

int cidr_parse(struct str text, struct cidr *ret, struct err *err)
{
	struct str prefix = text;
	struct str address = str_cut(&prefix, '/');
	struct cidr c = {.bits = ALL_BITS};
	int64_t bits = 0;

	int rc = address_parse(address, &c.base, err);
	if (rc < 0)
		return rc;
	if (prefix.data != NULL) {
		unsigned above = is_v4(&c.base) && memchr(address.data, ':', address.len) == NULL ? V4_BITS : 0;
		rc = str_to_i64(prefix, "the prefix of a network", 0, ALL_BITS - above, &bits, err);
		if (rc < 0)
			return err_set(err, ERR_INVALID, "'%.*s' is not a network: its prefix is from 0 to %u",
				       STR_ARG(text), ALL_BITS - above);
		c.bits = above + (unsigned)bits;
	}
	rc = check_base(&c, text, err);
	if (rc == 0)
		*ret = c;
	return rc;
}

bool cidr_has(const struct cidr *c, const struct address *a)
{
	return same_bits(&c->base, a, c->bits);
}

int cidr_list_parse(const char *const *texts, size_t count, const char *name, struct cidr_list *ret, struct err *err)
{
	autovar(cidr_list) l = {.items = xcalloc(count + 1, sizeof(*l.items))};

	for (size_t i = 0; i < count; i++) {
		if (strcmp(texts[i], "unix") == 0) {
			l.unix_peers = true;
			continue;
		}
		int rc = cidr_parse(str_c(texts[i]), &l.items[l.count], err);
		if (rc < 0)
			return err_wrap(err, "%s", name);
		l.count++;
	}
	*ret = TAKE_STRUCT(l);
	return 0;
}

void cidr_list_fini(struct cidr_list *l)
{
	free(l->items);
	*l = (struct cidr_list){0};
}

bool cidr_list_has(const struct cidr_list *l, const struct address *a)
{
	for (size_t i = 0; i < l->count; i++) {
		if (cidr_has(&l->items[i], a))
			return true;
	}
	return false;
}
