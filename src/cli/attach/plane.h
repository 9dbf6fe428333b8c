/*
 * The control plane that a job is at, asked from a loop: every call carries the session's token, made anew when it has
 * to be.
 */
#pragma once

#include "cli/session.h"
#include "net/http_client.h"
#include "net/loop.h"
#include "net/upgrade_client.h"

struct plane {
	struct loop *loop;
	struct http_client *client;
	struct session *session;
	const char *url;
};

/* Borrows the loop and the session. */
int plane_init(struct plane *p, struct loop *loop, struct session *session, struct err *err) must_check;
/* Cancels what is pending. */
void plane_fini(struct plane *p);

/* http_client_start(), of a path; the call's url and token are filled in here. */
int plane_call(const struct plane *p, const char *path, struct http_call call, http_done_fn done, void *ctx,
	       struct http_pending **ret, struct err *err) must_check;
/* upgrade_start() of a session's path. */
int plane_upgrade(const struct plane *p, const char *path, upgrade_done_fn *done, void *ctx, struct upgrade **ret,
		  struct err *err) must_check;
