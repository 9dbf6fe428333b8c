/*
 * DIR/run/endpoints.json: where the parts of a running system listen. `up` writes it when all are ready and removes it
 * when it ends; commands with the same data directory read it.
 */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

/* Below the data directory. */
#define ENDPOINTS_FILE "run/endpoints.json"
#define ADMIN_TOKEN_FILE "secrets/admin-token"
#define WEBHOOK_SECRET_FILE "secrets/github-webhook-secret"

struct endpoints {
	const char *control_plane; /* base URLs */
	const char *logging_pipeline;
	const char *agent_metrics;
	int64_t pid; /* of `up` */
	const char *version;
};

int endpoints_decode(struct str text, struct arena *arena, struct endpoints *ret, struct err *err) must_check;
void endpoints_encode(const struct endpoints *e, struct buf *out);
