/*
 * GitHub's deliveries between "accepted" (durable, answered 202) and "processed" (a job, or a recorded refusal).
 */
#pragma once

#include "base/arena.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "control/db/db.h"
#include "control/db/github_fold.h"

enum {
	DELIVERIES_DB_DOUBLED = 1,   /* accept */
	DELIVERIES_DB_REPLAYED = 2,  /* accept */
	DELIVERIES_DB_ELSEWHERE = 1, /* end: another control plane has ended them all, or does so now */
	DELIVERIES_DB_END_MAX = SQL_ARGS_MAX,
	/* How many nonces are remembered at most: a row of some 100 bytes each, for twice the tolerance. */
	DELIVERIES_DB_NONCES_MAX = 1000000,
};

struct delivery {
	const char *id;	   /* X-GitHub-Delivery */
	const char *event; /* X-GitHub-Event */
	struct str body;
	int64_t received_at;
	int64_t tries; /* that failed before */
};

/* What came. */
struct new_delivery {
	const char *id;
	const char *event;
	struct str body;
	const char *nonce; /* NULL: none; remembered for nonce_life_ns */
	int64_t nonce_life_ns;
};
/* Durable when it comes back, its nonce with it. DELIVERIES_DB_DOUBLED: that id was accepted before, which is fine; one
 * whose processing had been given up is taken up again with this body. DELIVERIES_DB_REPLAYED: the nonce was used
 * before, nothing is taken. */
int deliveries_db_accept(const struct control_db *db, const struct new_delivery *delivery, struct err *err) must_check;

/* Forgets nonces whose time is over; gives how many are left. */
int deliveries_db_forget_nonces(const struct control_db *db, int64_t *ret_left, struct err *err) must_check;

/* Up to `limit` that are due and about 32 MiB of bodies, oldest first: what this control plane has accepted, and what
 * another one has left standing. Taking marks nothing: who ends a delivery first has it. */
int deliveries_db_take(const struct control_db *db, int64_t limit, struct arena *arena, struct delivery **ret,
		       size_t *ret_count, struct err *err) must_check;

/* What becomes of one that was taken. */
struct delivery_end {
	const char *id;
	const char
		*refusal; /* "ping", "no nimbus label", "event 'push' is not for us"; NULL: it becomes what follows */
	struct github_fold fold;
};
/* All of them, in their order, in one commit; none where one fails. The bodies are dropped. One that
 * another control plane has ended, or is ending, is left to it. Up to DELIVERIES_DB_END_MAX; DELIVERIES_DB_ELSEWHERE.
 */
int deliveries_db_end(const struct control_db *db, const struct delivery_end *ends, size_t count, struct err *err)
	must_check;
/* Something of ours failed: due again after a growing pause, given up (state `failed`, the body kept) after ten. */
int deliveries_db_retry(const struct control_db *db, const char *id, const char *why, struct err *err) must_check;
struct deliveries_counts {
	int64_t waiting;
	int64_t refused;
	int64_t jobs;
	int64_t failed;
};
/* The first of them alone: its index has only those. */
int deliveries_db_waiting(const struct control_db *db, int64_t *ret, struct err *err) must_check;
int deliveries_db_counts(const struct control_db *db, struct deliveries_counts *ret, struct err *err) must_check;
