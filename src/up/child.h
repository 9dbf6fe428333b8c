/*
 * One role as a child of `up`: started by this very binary's descriptor, asked for /readyz until it is ready, started
 * again with growing pauses when it ends, stopped with a deadline. All of it on the loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "up/service_user.h"
#include "up/sockets.h"

struct loop;
struct http_client;
struct child;

enum child_event {
	CHILD_READY, /* for the first time, or again */
	CHILD_FELL,  /* ended by itself; it will be started again unless child_stop() is called */
	CHILD_GONE,  /* ended after child_stop(), or had no process then */
	CHILD_LATE,  /* not ready when its patience ended; told again where that ends again after a sign of life */
};

struct child_opts {
	struct loop *loop;
	struct http_client *client;
	int exec_fd;
	const char *name;		    /* the command: "control-plane"; what follows is borrowed */
	const char *const *argv;	    /* NULL-terminated */
	const char *const *envp;	    /* NULL-terminated */
	const char *url;		    /* base URL of its /readyz */
	const struct role_sockets *sockets; /* that it serves on, from LISTEN_INHERITED_FIRST on */
	const struct service_user *user;
	int64_t patience_ns; /* without a sign of life, from its start until it is ready: up/patience.h */
	int64_t stop_ns; /* between the first SIGTERM and a second one, which asks for haste; SIGKILL comes after that
			  */
	void (*on_event)(void *ctx, struct child *c, enum child_event event);
	void *ctx;
};

struct child *child_new(const struct child_opts *opts) must_check;
/* Kills what still runs. */
void child_free(struct child *c);
AUTOPTR_DEFINE(child)

int child_start(struct child *c, struct err *err) must_check;
/* A process that was started for it by the program before us; it counts as ready. */
int child_adopt(struct child *c, pid_t pid, struct err *err) must_check;
/* Ends it by `signal` and starts it again at once; CHILD_READY follows. SIGKILL where it does not go in its time. */
void child_replace(struct child *c, int signal);
/* Ends at once what is not ready yet; CHILD_FELL follows. */
void child_end_hung(struct child *c);
/* 0: it has no process just now. */
pid_t child_pid(const struct child *c);
/* CHILD_GONE follows, from the loop. A second call presses: SIGTERM again, and SIGKILL 15 s later. */
void child_stop(struct child *c);
/* SIGHUP, where it is ready: before that it reads everything anyway. */
void child_reload(const struct child *c);
bool child_is_ready(const struct child *c);
/* As CHILD_LATE said. */
bool child_is_late(const struct child *c);
/* What its /readyz answered last while it was not ready, or that it did not; "" where it was not asked. */
const char *child_answer(const struct child *c);
/* What it said last of what it does while it starts: "migrating control: 0009_job_image"; or "". */
const char *child_words(const struct child *c);
bool child_is_gone(const struct child *c);
const char *child_name(const struct child *c);
/* How often it fell without having been ready since. */
unsigned child_failures(const struct child *c);
/* How it fell last, in words: "exit status 3"; "" where it never did. */
const char *child_end(const struct child *c);
/* Its last end was a refusal of how it was called or configured: trying again cannot help. */
bool child_refused(const struct child *c);
