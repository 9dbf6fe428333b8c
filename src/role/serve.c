#include "role/serve.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "net/listen.h"
#include "net/tls.h"

char *role_socket_address(const char *address, const char *role)
{
	size_t len = strlen(address);

	if (strncmp(address, LISTEN_UNIX, strlen(LISTEN_UNIX)) != 0 ||
	    (len > 5 && strcmp(address + len - 5, ".sock") == 0))
		return xstrdup(address);
	return xasprintf("%s%s%s.sock", address, address[len - 1] == '/' ? "" : "/", role);
}

static int reload_tls(void *ctx, const struct common_settings *common, const void *settings, struct buf *changed,
		      struct err *err)
{
	const struct role_serving *s = ctx;

	(void)settings;
	if (common->tls_certificate == NULL || common->tls_key == NULL)
		return err_set(
			err, ERR_INVALID,
			"NIMBUS_TLS_CERTIFICATE and NIMBUS_TLS_KEY are gone: a server that speaks TLS goes on to, "
			"until it is started again");
	return tls_reload(s->tls, common->tls_certificate, common->tls_key, changed, err);
}

static int open_tls(const struct common_settings *common, struct tls **ret, struct err *err)
{
	if (common->tls_certificate == NULL && common->tls_key == NULL)
		return 0;
	if (common->tls_certificate == NULL || common->tls_key == NULL)
		return err_set(err, ERR_INVALID, "%s is set and %s is not: TLS needs both",
			       common->tls_key == NULL ? "NIMBUS_TLS_CERTIFICATE" : "NIMBUS_TLS_KEY",
			       common->tls_key == NULL ? "NIMBUS_TLS_KEY" : "NIMBUS_TLS_CERTIFICATE");
	return tls_open(common->tls_certificate, common->tls_key, ret, err);
}

int role_serving_init(struct role *role, const char *name, struct role_serving *ret, struct err *err)
{
	const struct common_settings *common = &role->common;
	autovar(role_serving) s = {.common = common, .role = role};
	const struct config_list *listen = &common->listen;

	s.addresses = xcalloc(listen->count + 1, sizeof(*s.addresses));
	for (; s.address_count < listen->count; s.address_count++)
		s.addresses[s.address_count] = role_socket_address(listen->items[s.address_count], name);
	int rc = cidr_list_parse((const char *const *)common->proxies.items, common->proxies.count,
				 "NIMBUS_TRUSTED_PROXY_CIDRS", &s.proxies, err);
	if (rc == 0)
		rc = open_tls(common, &s.tls, err);
	if (rc < 0)
		return rc;
	*ret = TAKE_STRUCT(s);
	if (ret->tls != NULL)
		role_on_reload(role, reload_tls, ret);
	return 0;
}

void role_serving_fini(struct role_serving *s)
{
	for (size_t i = 0; i < s->address_count; i++)
		free(s->addresses[i]);
	free(s->addresses);
	cidr_list_fini(&s->proxies);
	tls_free(s->tls);
	*s = (struct role_serving){0};
}

void role_serving_apply(const struct role_serving *s, struct http_server_opts *opts)
{
	if (s == NULL)
		return;
	opts->addresses = (const char *const *)s->addresses;
	opts->address_count = s->address_count;
	opts->listen_fds = s->role->listen_fds;
	opts->listen_fd_count = s->role->listen_fd_count;
	opts->proxies = &s->proxies;
	opts->tls = s->tls;
	opts->connections_max = (unsigned)s->common->connections_max;
	opts->connections_per_address = (unsigned)s->common->connections_per_address;
}
