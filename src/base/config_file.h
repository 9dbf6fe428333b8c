/*
 * Files of variables, as systemd's EnvironmentFile= reads them (base/config.h has the grammar): text in, assignments
 * out.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct config_file {
	/* `origin` is PATH:LINE, of where the assignment begins. */
	int (*assign)(void *ctx, struct str name, struct str value, const char *origin, struct err *err);
	/* rc < 0: what is wrong with a line; where 0 comes back, reading goes on behind it. rc of 0 is passed on. */
	int (*problem)(void *ctx, int rc, const struct err *err);
	void *ctx;
};

int config_file_parse(const struct config_file *f, const char *path, struct str text, struct err *err) must_check;
