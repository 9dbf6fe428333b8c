/*
 * Brings what is in the spool to the logging pipeline: one batch at a time, each again until the pipeline has it on
 * disk (a line is job, attempt and seq, so one that arrives twice is stored once). A pipeline that is away or in
 * trouble is tried with back-off for ever; one that refuses what it is sent (4xx) gets some minutes to be mended, by
 * its keys, its clock or its address. Only a 409 is its last word.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/secret.h"
#include "net/http_client.h"
#include "net/loop.h"
#include "proto/shim_msg.h"
#include "shim/spool.h"

struct shipper;

struct shipper_opts {
	struct loop *loop;
	struct http_client *client; /* on that loop */
	struct spool *spool;
	const char *url; /* of POST /logs; this and the token outlive it */
	const struct secret *token;
	int64_t job_id;
	int64_t attempt;
	int64_t org_id;
	int64_t repo_id;
	const char *agent_id;
	int64_t backoff_max_ns;	  /* 0: 5 s */
	int64_t patience_ns;	  /* with a pipeline that refuses; 0: 15 min */
	void (*acked)(void *ctx); /* some has arrived */
	/* Once, instead of all further acks: the attempt is sealed (ERR_SEALED), the pipeline lacks lines that it
	 * acknowledged, it has refused the lines or the token for too long, or the spool is damaged. */
	void (*refused)(void *ctx, const struct err *err);
	void *ctx;
};

int shipper_new(const struct shipper_opts *opts, struct shipper **ret, struct err *err) must_check;
/* Cancels what is under way. */
void shipper_free(struct shipper *s);
AUTOPTR_DEFINE(shipper)
/* From the next call on; the text outlives it. */
void shipper_redirect(struct shipper *s, const char *url);
struct shim_shipping shipper_counts(const struct shipper *s);
/* There is more in the spool. */
void shipper_wake(struct shipper *s);
