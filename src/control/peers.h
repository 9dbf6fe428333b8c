/*
 * The other control planes on the same database: what happens here may be what a call there waits for. A job that no
 * call here can take, and a command whose agent does not wait here, are told to them by LISTEN/NOTIFY. That is a hint
 * which may be lost, so every two seconds each looks by itself whether something stands there that a waiting call
 * could have. On SQLite there are no others, and only that look remains.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct app;
struct peers;

/* `shared`: there may be others. */
struct peers *peers_new(struct app *app, bool shared) must_check;
void peers_free(struct peers *p);

/* Hears what the others tell, in a thread of the store, from now on until the database is closed. */
int peers_listen(struct peers *p, struct err *err) must_check;

/* From any thread; sent at once, several in one note where they come faster. */
void peers_tell_job(struct peers *p, int64_t job_id);
/* It has a command, or is given work again. */
void peers_tell_agent(struct peers *p, const char *agent_id);

/* Something may have changed that nobody told of. */
void peers_look_soon(struct peers *p);

/* The background worker's: sends and looks. `ctx` is the app. */
int64_t peers_pass(void *ctx);
