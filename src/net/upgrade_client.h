/*
 * The client's end of a connection that HTTP was asked to let go of: GET with Upgrade, and after the 101 bytes both
 * ways. http, https and http+unix, as net/http_client.h has them.
 *
 * There is no half-close: TLS through a server has none that reaches the other side, so protocols on top say themselves
 * when a direction ends.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"
#include "net/http_client.h"
#include "net/loop.h"

struct upgrade;

struct upgrade_opts {
	const char *url;
	const struct secret *token; /* or NULL */
	const char *protocol;
	int64_t timeout_ns; /* until the 101; 0: 30 s */
};

/* err NULL: it is open. Else what the server says, or why there was no answer. It may free the upgrade. */
typedef void upgrade_done_fn(void *ctx, const struct err *err);

/* `done` comes from the loop, never from within. Copies the options; the client is on that loop, and outlives it. */
int upgrade_start(struct loop *loop, struct http_client *client, const struct upgrade_opts *opts, upgrade_done_fn *done,
		  void *ctx, struct upgrade **ret, struct err *err) must_check;
/* Blocks until it is open. */
int upgrade_open(const struct upgrade_opts *opts, struct upgrade **ret, struct err *err) must_check;
/* Closes the connection. NULL is fine. */
void upgrade_free(struct upgrade *u);
AUTOPTR_DEFINE(upgrade)

/* Of an open one. Nothing blocks. Where it opens, and whenever the descriptor is readable, read until HTTP_AGAIN. */
int upgrade_fd(const struct upgrade *u);
/* 0: *ret_got bytes; HTTP_AGAIN; HTTP_CLOSED: the peer has closed. */
int upgrade_recv(struct upgrade *u, char *to, size_t cap, size_t *ret_got, struct err *err) must_check;
/* 0: *ret_sent bytes, maybe not all; HTTP_AGAIN. */
int upgrade_send(struct upgrade *u, struct str bytes, size_t *ret_sent, struct err *err) must_check;
