/*
 * The signals of a role that serves: SIGTERM and SIGINT end it, SIGHUP has it read again what it may. They come by a
 * descriptor, to the one thread that waits for the role's end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct role;

struct role_signals {
	int fd;
};

/* Blocks them: before any thread starts, so that all leave them to this. */
int role_signals_init(struct role_signals *s, struct err *err) must_check;
void role_signals_fini(struct role_signals *s);
AUTOVAR_DEFINE(role_signals)

/* While the role starts, when there is nothing to finish. False: it is to end. */
bool role_signals_pause(struct role_signals *s, int64_t ns);
/* Until a signal ends it: true; or until `other_fd` (-1: none) is readable: false. Reloads on SIGHUP meanwhile. */
bool role_signals_wait(struct role_signals *s, struct role *role, int other_fd);
/* From now on a second SIGTERM or SIGINT ends the process at once. */
void role_signals_release(struct role_signals *s);
