/*
 * What a backup holds: manifest.json, and manifest.sha256 beside it, which is the manifest's own digest. A file that is
 * not in the manifest does not belong to the backup. What is read here may have been damaged or made by somebody: every
 * path is checked before it is used.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

#define MANIFEST_FILE "manifest.json"
#define MANIFEST_DIGEST_FILE "manifest.sha256"
enum { MANIFEST_FORMAT = 1, MANIFEST_FILES_MAX = 4 << 20 };

struct manifest_file {
	const char *path; /* below the backup's folder and below the data directory: "logs/segments/1/0/1-1.seg" */
	const char *sha256;
	int64_t size;
	int64_t mode;
	int64_t uid;
	int64_t gid;
};

struct manifest {
	int64_t format;
	const char *nimbus; /* the version that made it */
	int64_t made_at;
	const char *control; /* "sqlite"; "postgresql": not in here; "none" */
	const char *agent;
	int64_t control_schema; /* 0: no database */
	int64_t agent_schema;
	int64_t generation; /* how often the control plane's database had been restored before */
	bool with_secrets;
	struct {
		struct manifest_file *items;
		size_t count;
	} files;
};

void manifest_encode(const struct manifest *m, struct buf *out);
/* ERR_INVALID; ERR_CONFLICT: of a newer format. */
int manifest_decode(struct str text, struct arena *arena, struct manifest *ret, struct err *err) must_check;
/* Relative, without "." and "..", and of ordinary length. */
bool manifest_path_is_good(const char *path);
