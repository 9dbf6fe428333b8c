#include "net/http_forwarded.h"

#include <string.h>
#include <strings.h>

bool http_origin_is_proxy(const struct http_origin *origin, const struct cidr_list *proxies)
{
	if (proxies == NULL)
		return false;
	return origin->unix_peer ? proxies->unix_peers : cidr_list_has(proxies, &origin->address);
}

/* The last piece of a list, taken off its end; false where nothing is left. */
static bool cut_last(struct str *list, struct str *ret)
{
	if (list->data == NULL)
		return false;
	size_t at = list->len;
	while (at > 0 && list->data[at - 1] != ',')
		at--;
	*ret = str_trim((struct str){list->data + at, list->len - at});
	*list = at > 0 ? (struct str){list->data, at - 1} : (struct str){0};
	return true;
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80" */
static int parse_hop(struct str hop, struct address *ret, struct err *err)
{
	const char *colon = hop.len > 0 ? memchr(hop.data, ':', hop.len) : NULL;
	const char *close = hop.len > 0 ? memchr(hop.data, ']', hop.len) : NULL;

	if (hop.len > 0 && hop.data[0] == '[' && close != NULL) {
		size_t after = hop.len - (size_t)(close + 1 - hop.data);
		if (after == 0 || close[1] == ':')
			hop = (struct str){hop.data + 1, (size_t)(close - hop.data) - 1};
	} else if (colon != NULL && memchr(colon + 1, ':', hop.len - (size_t)(colon + 1 - hop.data)) == NULL) {
		hop.len = (size_t)(colon - hop.data);
	}
	return address_parse(hop, ret, err);
}

static int resolve_for(const struct http_forwarded *f, const struct cidr_list *proxies, struct http_origin *origin,
		       struct err *err)
{
	for (size_t i = f->for_count; i > 0; i--) {
		struct str list = str_c(f->for_lines[i - 1]);
		struct str hop = {0};
		while (cut_last(&list, &hop)) {
			if (hop.len == 0)
				continue; /* an empty element of a list counts for nothing (RFC 9110, 5.6.1) */
			int rc = parse_hop(hop, &origin->address, err);
			if (rc < 0)
				return err_wrap(err, "the proxy's X-Forwarded-For");
			origin->unix_peer = false;
			if (!cidr_list_has(proxies, &origin->address))
				return 0;
		}
	}
	return 0;
}

static int resolve_proto(const struct http_forwarded *f, struct http_origin *origin, struct err *err)
{
	struct str list = str_c(f->proto_lines[f->proto_count - 1]);
	struct str word = {0};

	(void)cut_last(&list, &word);
	if (word.len == 5 && strncasecmp(word.data, "https", 5) == 0)
		origin->https = true;
	else if (word.len == 4 && strncasecmp(word.data, "http", 4) == 0)
		origin->https = false;
	else
		return err_set(err, ERR_INVALID, "the proxy's X-Forwarded-Proto is neither http nor https");
	return 0;
}

int http_forwarded_resolve(const struct http_forwarded *f, const struct cidr_list *proxies, struct http_origin *origin,
			   struct err *err)
{
	struct http_origin found = *origin;

	if (!http_origin_is_proxy(origin, proxies))
		return 0;
	int rc = resolve_for(f, proxies, &found, err);
	if (rc == 0 && f->proto_count > 0)
		rc = resolve_proto(f, &found, err);
	if (rc == 0)
		*origin = found;
	return rc;
}
