/*
 * Another program takes the place of this one, in the same process: what is under it goes on. `nimbus upgrade` (or
 * SIGUSR2) asks `up` for it, `up` looks whether the new program can run with what there is, and leaves it the roles,
 * which are then replaced one by one. Where a role does not come up under it, it gives the place back. Nothing is lost:
 * connections wait in the sockets, jobs in their shims.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "up/handover.h"

/* Where this program lies, also when another file is put there later. The caller frees. */
int upgrade_program(char **ret, struct err *err) must_check;
/* Whether what lies there now can run here: a whole program for this processor, that starts, accepts the configuration
 * and knows the databases. Waits some seconds. */
int upgrade_try(const char *program, const char *data_dir, const char *env_file, struct err *err) must_check;
/* Executes that file, or where it is NULL the one that h->previous_fd is. Returns only when it failed: then all is as
 * it was. */
int upgrade_exec(const char *program, const struct handover *h, struct err *err) must_check;

/* DIR/run/upgrade.json: how the last one went, for those who asked for it. */
struct upgrade_result {
	int64_t number; /* counts */
	bool ok;
	const char *message;
};
/* number 0 where there was none. */
int upgrade_last(const char *data_dir, struct arena *arena, struct upgrade_result *ret, struct err *err) must_check;
/* Counts on by itself. */
int upgrade_tell(const char *data_dir, bool ok, const char *message, struct err *err) must_check;
