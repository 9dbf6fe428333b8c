/*
 * What a job asks for beyond its command: where it starts, folders that come before it and go out after it, and
 * somebody who talks with it. Most jobs ask for none of it. Kept and sent to agents as one JSON object.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"

enum { JOB_FOLDERS_MAX = 16, JOB_PATH_MAX = 1024, JOB_ROWS_MAX = 10000 };

struct job_extras {
	const char *workdir;	/* NULL: the guest's default */
	struct js_texts inputs; /* paths in the guest, in the order of their numbers */
	struct js_texts outputs;
	bool session;
	bool stdin_open; /* the client has input for it */
	int64_t rows;	 /* of its terminal; 0: it has pipes */
	int64_t cols;
};
extern const struct js_shape job_extras_shape;

/* Absolute, of at most JOB_PATH_MAX bytes, without ".." and control characters. */
int job_path_check(const char *path, const char *field, struct err *err) must_check;
int job_extras_check(const struct job_extras *extras, struct err *err) must_check;
bool job_extras_empty(const struct job_extras *extras);
