/*
 * How many machines a host keeps ready for jobs to come: clones that wait for their identity. Of each kind of machine
 * as many as jobs asked for at once lately, fewer as time goes by, never more than there is room for. Pure: the agent
 * asks after each change and does what is said, one thing at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* So many jobs in so short a time came at once: no clone is made in between. */
#define POOL_BURST_NS INT64_C(10000000000)
/* What was asked for at once counts half after that time. */
#define POOL_HALF_LIFE_NS INT64_C(600000000000)
/* A clone that nobody took is made anew: its memory, and what the kernel of the host knows of it, grow old. */
#define POOL_AGE_MAX_NS INT64_C(3600000000000)

/* What jobs have asked for, of one kind of machine. All zeros: nothing. */
struct pool_demand {
	int64_t burst_ns; /* when the jobs that came last began to come; monotonic */
	int64_t burst;	  /* so many were they */
	int64_t peak;	  /* 1024ths of the most that came at once, as of peak_ns */
	int64_t peak_ns;
	int64_t last_ns;
};

void pool_asked(struct pool_demand *d, int64_t now_ns);
/* How many machines that says are to be ready: 0 after two half-lives without a job that came alone. */
int64_t pool_wanted(const struct pool_demand *d, int64_t now_ns);

/* A clone that a job of its kind could have. */
struct pool_clone {
	bool ready;	  /* else in the making */
	int64_t begun_ns; /* it is made since then */
	int64_t takes_ns; /* so long the last of its kind took to be ready; 0: not known */
};

/* Whether a job takes `a` rather than `b`; NULL: than none of them, which is a machine begun for this job. One that is
 * more than half made is ahead of that. One that is less so is not: what it rehearses cannot be stopped early, and it
 * will be ready for the job after this one. */
bool pool_rather(const struct pool_clone *a, const struct pool_clone *b, int64_t now_ns);

/* One kind of machine: image, template, shape. */
struct pool_kind {
	struct pool_demand demand;
	int64_t not_before_ns; /* none is made before: the last one failed */
	int64_t vcpus;
	int64_t memory_mb;
	int64_t clone_bytes; /* of the host's memory that one takes while it waits: assumed, until one was measured */
	bool can;	     /* there is a template to make them from */
	int64_t ready;	     /* so many wait, or are in the making */
	int64_t oldest_ns;   /* when the oldest of them was begun */
};

/* What one of them takes, as was measured; what cannot be is not believed. */
void pool_measured(struct pool_kind *k, int64_t bytes);

struct pool_room {
	int64_t now_ns;
	int64_t count_max;	/* of all kinds; 0: there is no pool */
	int64_t vcpus;		/* that no job has */
	int64_t memory_mb;	/* that no job has */
	int64_t memory_free;	/* bytes of the host, as if those that are just ending were gone */
	int64_t memory_reserve; /* that shall stay free */
	bool busy;		/* jobs are being started, or one is being made: none is begun */
};

enum pool_step { POOL_NOTHING, POOL_DROP, POOL_MAKE };

/* POOL_DROP (the oldest of its kind) and POOL_MAKE: which kind. */
enum pool_step pool_plan(const struct pool_kind *kinds, size_t count, const struct pool_room *room, size_t *ret_index);
