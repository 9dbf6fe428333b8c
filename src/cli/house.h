/*
 * A Nimbus of our own, for demonstrations: this very program's `up` as a process, in a temporary data directory, with
 * free ports and nothing of the caller's configuration. Its processes are found by the files that they have open there,
 * and nothing is left of it at the end.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/process.h"
#include "base/secret.h"

struct http_client;

struct house {
	char dir[64]; /* empty: there is none */
	char *program;
	struct process up;
	bool running;
	struct http_client *client;
	struct secret *token;
	char *control; /* URLs */
	char *logs;
	sigset_t ends;	  /* signals that end us: blocked, and taken by house_pause() */
	bool interrupted; /* one has come */
};

/* Blocks SIGINT, SIGTERM and SIGHUP. ERR_IO where there is no room for it. */
int house_make(struct house *h, struct err *err) must_check;
/* Ends every process of it and removes its files; `keep`: not these. Fine when it was made by halves. */
void house_end(struct house *h, bool keep);

int house_start(struct house *h, struct err *err) must_check;
/* All roles answer. A negative: it has ended, with what it said last. 0: not yet. */
int house_ready(struct house *h, struct err *err) must_check;

/* Waits; false: it was interrupted, now or before. */
bool house_pause(struct house *h, int64_t ns);

enum house_server { HOUSE_CONTROL, HOUSE_LOGS };
/* One try. ERR_UNAVAILABLE while a role is away. */
int house_ask(struct house *h, enum house_server server, const char *method, const char *path, const struct js *body,
	      struct js **ret, struct err *err) must_check;

/* 0: there is none at the moment. */
pid_t house_role(const struct house *h, const char *role);
pid_t house_shim(const struct house *h);
/* kill -9 of `up`, with which its roles die; jobs' shims live on. */
int house_kill_up(struct house *h, struct err *err) must_check;
