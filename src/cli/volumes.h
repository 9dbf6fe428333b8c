/*
 * What of our files a job gets, and what comes back: -v HOST:GUEST[:ro] and --output PATH, as they are written, made
 * into the inputs and outputs that the control plane knows.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"

/* Where a job finds the current folder. */
#define WORKSPACE "/workspace"

struct volume {
	const char *host; /* as it was written */
	bool is_file;
	bool read_only;	    /* nothing comes back */
	const char *input;  /* the folder in the guest that its tar is unpacked into */
	const char *output; /* what is packed there for the way back */
	const char *name;   /* a file's, in both tars */
};
/* Looks whether HOST is there, and what it is. */
int volume_parse(const char *text, struct arena *arena, struct volume *ret, struct err *err) must_check;

struct wanted {
	const char *output; /* the path in the guest */
	const char *folder; /* of ours, that it is put into */
	const char *name;   /* its last part: nothing else is taken */
};
/* PATH, relative to WORKSPACE or absolute; PATH:FOLDER puts it into that folder, otherwise it comes to where it is in
 * the workspace. */
int wanted_parse(const char *text, bool workspace, struct arena *arena, struct wanted *ret, struct err *err) must_check;
