/*
 * What carries a dialogue: a connection to the control plane, made again where it fails for a passing reason. The job's
 * own session is taken up again where it broke off, for as long as a control plane takes to be started again; a command
 * beside a job ends with its connection. Nothing blocks.
 */
#pragma once

#include <stdbool.h>

#include "cli/attach/dialogue.h"
#include "cli/attach/plane.h"

struct connection;

struct connection_ops {
	/* An enum dialogue_event. Negative: it is not taken, and `failed` says so. */
	int (*heard)(void *ctx, int event, const struct dialogue_said *said, struct err *err);
	/* It is open, or bytes came or went: there may be room for more. */
	void (*moved)(void *ctx);
	/* It broke off, and taking it up again takes a while. Once. */
	void (*slow)(void *ctx);
	/* It broke off for good. */
	void (*broke_off)(void *ctx, const char *why);
	/* It was never open for good, or the other end broke the rules. */
	void (*failed)(void *ctx, const struct err *err);
};

struct connection_opts {
	const struct plane *plane;
	const char *path; /* of the session */
	bool resumes;	  /* taken up again where it breaks off */
	struct dialogue *dialogue;
	const struct connection_ops *ops;
	void *ctx;
};

/* Borrows what the options point to; begins when it is told to. */
int connection_new(const struct connection_opts *opts, struct connection **ret, struct err *err) must_check;
void connection_free(struct connection *c);
AUTOPTR_DEFINE(connection)

void connection_start(struct connection *c);
bool connection_open(const struct connection *c);
/* Sends what the dialogue has to say, as far as it goes now; the rest by itself. */
void connection_flush(struct connection *c);
