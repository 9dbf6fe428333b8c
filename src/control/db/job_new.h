/*
 * New jobs: from what is asked for to the rows that a job begins with.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/secret.h"
#include "control/db/db.h"
#include "control/db/job_row.h"
#include "model/labels.h"

/* Checked by the caller (names, limits, whether the image exists); argv is not empty. */
struct job_spec {
	int64_t org_id;
	const char *name; /* NULL: none */
	const char *image;
	struct js_texts argv;
	struct js_pairs env;
	const struct secret *secret_env; /* a JSON object of strings; NULL: none. Sealed before it is stored. */
	struct label_set labels;
	const char *executor; /* NULL: "firecracker" */
	int64_t vcpus;
	int64_t memory_mb;
	int64_t disk_mb;
	int64_t timeout_s;
	const char *network; /* NULL: none */
	int64_t max_attempts;
	const char *extras; /* JSON: model/job_extras.h; NULL: none */
	bool waits_for_files;
	const char *idempotency_key; /* NULL: none. Per org. */
	struct js_pairs metadata;
};

/* Ready to be leased; the caller may change it before it is written. */
void job_from_spec(const struct job_spec *spec, struct job *ret);
/* Everything that comes with a new job: its number, labels, row, place in the queue, secrets. `digest` tells equal
 * requests, and may be NULL. */
int job_create(struct control_tx *t, const struct job_spec *spec, struct job *job, const char *digest, struct err *err)
	must_check;
