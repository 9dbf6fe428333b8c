/*
 * A person waits for a job that does not begin: after a while the control plane is asked why, once, and its sentence is
 * told.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/attach/plane.h"

struct waiting;

struct waiting_opts {
	const struct plane *plane;
	int64_t job_id;
	bool (*busy)(void *ctx); /* with something that says enough: later, then */
	void (*tell)(void *ctx, const char *sentence);
	void *ctx;
};

int waiting_new(const struct waiting_opts *opts, struct waiting **ret, struct err *err) must_check;
/* It has begun. NULL is fine. */
void waiting_free(struct waiting *w);
AUTOPTR_DEFINE(waiting)
