/*
 * The keys of the control plane while it runs: signing keys, sealing keys and shared secrets are read again on SIGHUP,
 * and the key files also by themselves, so that a rotation needs no restart. Control planes that share a database tell
 * one another which keys they use: one that lacks another's does not start.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "role/role.h"

struct app;

/* Signing keys, sealing keys, the verifier: before the database. */
int app_keys_open(struct app *app, const char *data_dir, struct err *err) must_check;
/* Where the database is shared: says that this one is here. ERR_INVALID: another control plane has keys that this one
 * lacks. */
int app_keys_join(struct app *app, bool shared, struct err *err) must_check;
void app_keys_leave(struct app *app);
void app_keys_free(struct app *app);

/* A role_reload_fn; `ctx` is the app, `settings` a struct control_settings. */
role_reload_fn app_keys_reload;
/* A worker's pass. */
int64_t keys_pass(void *ctx);
