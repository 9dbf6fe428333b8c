/*
 * The listening sockets of the roles. `up` opens them and gives each role its own, so that a role which falls or is
 * replaced refuses nobody: connections wait in the kernel until the next one takes them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "model/settings.h"
#include "net/listen.h"
#include "up/service_user.h"

enum up_role { UP_CONTROL, UP_LOGGING, UP_AGENT, UP_ROLE_COUNT };

/* "control-plane" */
extern const char *const up_role_names[UP_ROLE_COUNT];

struct role_sockets {
	struct listener *items[LISTEN_INHERITED_MAX];
	size_t count;
};
/* Under which number a role finds the pipe of its signs of life (role/sign.h): behind its sockets. */
unused_fn static inline int role_sockets_sign_fd(const struct role_sockets *r)
{
	return LISTEN_INHERITED_FIRST + (int)r->count;
}

struct sockets {
	uint16_t ports[UP_ROLE_COUNT]; /* of the TCP addresses */
	struct role_sockets roles[UP_ROLE_COUNT];
};
void sockets_fini(struct sockets *s);
AUTOVAR_DEFINE(sockets)

struct sockets_spec {
	const char *data_dir;
	const char *const *addresses[UP_ROLE_COUNT]; /* numeric, or "unix:/path"; NULL-terminated */
	const struct service_user *user;	     /* unix sockets become its own */
};

/* `wanted`: a port for each role; 0: a free one. ERR_CONFLICT: one is in use, the message says by whom. */
int sockets_open(const struct sockets_spec *spec, const uint16_t wanted[static UP_ROLE_COUNT], struct sockets *ret,
		 struct err *err) must_check;
/* Free ones, the same as the last time where that can be: shims of running jobs remember where to send lines. */
int sockets_open_free(const struct sockets_spec *spec, struct sockets *ret, struct err *err) must_check;
/* For the next sockets_open_free(). */
int sockets_remember(const struct sockets_spec *spec, const struct sockets *s, struct err *err) must_check;
