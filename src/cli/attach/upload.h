/*
 * The files of a job on their way to it, one after the other, each tried again where that can help; with a progress bar
 * on a terminal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/attach/plane.h"
#include "cli/pack.h"

/* One input of the job. */
struct upload_file {
	struct pack *pack;
	uint64_t bytes; /* about so many, for the progress bar */
};

struct upload;

struct upload_opts {
	const struct plane *plane;
	int64_t job_id;
	const struct upload_file *files; /* inputs, from 0 */
	size_t file_count;
	bool quiet;
	void (*note)(void *ctx, const char *line); /* what changed while it was read */
	void (*failed)(void *ctx, const struct err *err);
	void *ctx;
};

/* Borrows the files; begins when it is told to. */
int upload_new(const struct upload_opts *opts, struct upload **ret, struct err *err) must_check;
void upload_free(struct upload *u);
AUTOPTR_DEFINE(upload)

void upload_start(struct upload *u);
bool upload_done(const struct upload *u);
/* Nobody wants them any more. */
void upload_stop(struct upload *u);
