/*
 * How a role serves HTTP: what the variables that all roles share say of addresses, limits and proxies.
 */
#pragma once

#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "model/settings.h"
#include "net/cidr.h"
#include "net/http_server.h"
#include "role/role.h"

struct role_serving {
	const struct common_settings *common;
	const struct role *role;
	char **addresses;
	size_t address_count;
	struct cidr_list proxies;
	struct tls *tls; /* NULL: none */
};

/* `name` is that of its unix socket: "unix:/run/nimbus" becomes /run/nimbus/NAME.sock; a path that ends in .sock is
 * taken as it is. Has the certificate read again on SIGHUP. The role outlives it, and its signals are taken no more
 * when it ends. */
int role_serving_init(struct role *role, const char *name, struct role_serving *ret, struct err *err) must_check;
void role_serving_fini(struct role_serving *s);
AUTOVAR_DEFINE(role_serving)

/* Into the options of the role's server; it outlives that. NULL: nothing is configured. */
void role_serving_apply(const struct role_serving *s, struct http_server_opts *opts);

/* Where a unix address of the list has the role's socket; the caller frees. */
char *role_socket_address(const char *address, const char *role) must_check;
