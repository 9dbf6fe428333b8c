/*
 * What `up` decides before it starts anything: folders, ports, secrets, and the environment that tells the roles of
 * them.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/endpoints.h"
#include "role/role.h"
#include "up/service_user.h"
#include "up/sockets.h"

enum { PORT_BASE_UNSET = -1 };

/* The settings of all roles, as the roles themselves will read them: what is wrong in them is said before anything
 * starts. */
struct layout {
	struct role role;
	struct control_settings control;
	struct logging_settings logging;
	struct agent_settings agent;
	struct service_user user;
	struct sockets sockets;
	struct endpoints endpoints;
	const char *admin_token; /* path */
	struct arena *arena;	 /* of all strings above and of the environment */
};

int layout_open(const struct role_flags *flags, struct layout *ret, struct err *err) must_check;
void layout_fini(struct layout *l);
AUTOVAR_DEFINE(layout)

/* The folders below the data directory, for the service user. */
int layout_make_folders(const struct layout *l, struct err *err) must_check;
/* Opens what the roles listen on. port_base: N, N+2 and N+4; 0 picks free ports; PORT_BASE_UNSET takes what the
 * variables say. A port in use is an error that says by whom, unless `fallback`: then all are free ones. */
int layout_open_sockets(struct layout *l, int64_t port_base, bool fallback, struct err *err) must_check;
/* Those that are open already; leaves *sockets empty. */
void layout_take_sockets(struct layout *l, struct sockets *sockets);
/* DIR/run/roles.env: what stands in files that only we may see, or that the roles would look for elsewhere. */
int layout_write_settings(const struct layout *l, struct err *err) must_check;
/* For --env-file of the roles. */
const char *layout_settings_file(const struct layout *l) must_check;
/* Reads the files again, and writes that one anew; nothing where something in them is wrong. */
int layout_read_again(struct layout *l, const struct role_flags *flags, struct err *err) must_check;
/* Makes what is missing in DIR/secrets, and the tokens of the CLI and of the agent. */
int layout_make_secrets(struct layout *l, struct err *err) must_check;
/* The same after somebody changed the files. */
int layout_renew_secrets(struct layout *l, struct err *err) must_check;
/* Puts kernel and images into DIR/assets. */
int layout_install_assets(const struct layout *l, struct err *err) must_check;
/* This process's environment with what the role must know put in; NULL-terminated, in the arena. */
const char *const *layout_environment(const struct layout *l, enum up_role role) must_check;
