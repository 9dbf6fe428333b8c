/*
 * Names that come from outside: agents, rootfs images, environment variables. What is a name here is safe as a file
 * name, in a log line and in a URL.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/* 1 to 128 of [A-Za-z0-9._-], not beginning with '.' or '-'. `field` is what the message calls it. */
int name_check(struct str name, const char *field, struct err *err) must_check;
/* A rootfs name, as name_check(). An OCI reference (it has '/', ':' or '@') is refused with a sentence of its own. */
int image_name_check(struct str image, struct err *err) must_check;
/* What a job reaches: nothing, or what its host reaches. */
#define JOB_NETWORK_NONE "none"
#define JOB_NETWORK_OPEN "open"
int job_network_check(struct str network, struct err *err) must_check;
/* POSIX: [A-Za-z_][A-Za-z0-9_]*, at most 256 bytes. */
int env_name_check(struct str name, const char *field, struct err *err) must_check;
