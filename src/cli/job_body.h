/*
 * The body of a submit, from the flags of those commands that make jobs.
 */
#pragma once

#include "base/command.h"
#include "base/js.h"

/* The default of a number's flag: the server's own default. */
enum { BODY_NOT_GIVEN = -1 };

/* What such a command says of the machine: part of its options struct. */
struct body_job {
	const char *image;
	const char *name;
	const char *network;
	int64_t vcpus;
	int64_t memory_mb;
	int64_t disk_mb;
	int64_t timeout_ns;
};
/* All of it that was given. */
void body_job(struct js *body, const struct body_job *job);

/* --env N=V, into an object of variables. */
int body_variables(struct js *env, const struct option_texts *texts, struct err *err) must_check;
/* --secret-env N=V, or N, which takes the value of our own variable, so that it does not stand in arguments. */
int body_secrets(struct js *env, const struct option_texts *texts, struct err *err) must_check;
/* The lines of a file, NAME=VALUE each; a NAME alone takes the value of our own variable; '#' begins a remark. */
int body_variables_file(struct js *env, const char *path, struct err *err) must_check;
/* Where it is not BODY_NOT_GIVEN, or NULL. */
void body_number(struct js *body, const char *key, int64_t value);
void body_text(struct js *body, const char *key, const char *value);
struct js *body_texts(const char *const *items, size_t count) must_check;
/* {"stdin": ..., "tty": ...}: somebody will be attached; a terminal has the size of ours. */
struct js *body_session(bool stdin_open, bool tty) must_check;
