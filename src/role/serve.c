#include "role/serve.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "net/listen.h"

char *role_socket_address(const char *address, const char *role)
{
	size_t len = strlen(address);

	if (strncmp(address, LISTEN_UNIX, strlen(LISTEN_UNIX)) != 0 ||
	    (len > 5 && strcmp(address + len - 5, ".sock") == 0))
		return xstrdup(address);
	return xasprintf("%s%s%s.sock", address, address[len - 1] == '/' ? "" : "/", role);
}

int role_serving_init(const struct common_settings *common, const char *role, struct role_serving *ret, struct err *err)
{
	autovar(role_serving) s = {.common = common};
	const struct config_list *listen = &common->listen;

	s.addresses = xcalloc(listen->count + 1, sizeof(*s.addresses));
	for (; s.address_count < listen->count; s.address_count++)
		s.addresses[s.address_count] = role_socket_address(listen->items[s.address_count], role);
	int rc = cidr_list_parse((const char *const *)common->proxies.items, common->proxies.count,
				 "NIMBUS_TRUSTED_PROXY_CIDRS", &s.proxies, err);
	if (rc < 0)
		return rc;
	*ret = TAKE_STRUCT(s);
	return 0;
}

void role_serving_fini(struct role_serving *s)
{
	for (size_t i = 0; i < s->address_count; i++)
		free(s->addresses[i]);
	free(s->addresses);
	cidr_list_fini(&s->proxies);
	*s = (struct role_serving){0};
}

void role_serving_apply(const struct role_serving *s, struct http_server_opts *opts)
{
	if (s == NULL)
		return;
	opts->addresses = (const char *const *)s->addresses;
	opts->address_count = s->address_count;
	opts->proxies = &s->proxies;
	opts->connections_max = (unsigned)s->common->connections_max;
	opts->connections_per_address = (unsigned)s->common->connections_per_address;
}
