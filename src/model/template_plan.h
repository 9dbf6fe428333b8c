/*
 * Which templates a host keeps: those of machines that jobs ask for again and again, the least used dropped where room
 * is short. Pure: the agent asks after each change and does what is said, one thing at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One kind of machine that jobs have asked for. */
struct template_wish {
	int64_t asked;	       /* how often */
	int64_t last_asked_ns; /* monotonic */
	int64_t not_before_ns; /* none is made before: the last try failed; 0: at any time */
	int64_t memory_bytes;  /* of the machine */
	bool has;	       /* there is a template of it */
	int64_t bytes;	       /* that it takes on the disk */
};

struct template_room {
	int64_t now_ns;
	int64_t count_max;
	int64_t bytes_max;	/* of all templates */
	int64_t disk_free;	/* bytes */
	int64_t disk_reserve;	/* that shall stay free */
	int64_t memory_free;	/* bytes */
	int64_t memory_reserve; /* that shall stay free while one is made */
	bool busy;		/* jobs are being started, or one is being made: nothing is begun */
};

enum template_step { TEMPLATE_NOTHING, TEMPLATE_DROP, TEMPLATE_MAKE };

/* Asked for so often, a machine gets a template: making one costs what two boots do. */
enum { TEMPLATE_ASKED_LEAST = 2 };

/* TEMPLATE_DROP and TEMPLATE_MAKE: which wish. */
enum template_step template_plan(const struct template_wish *wishes, size_t count, const struct template_room *room,
				 size_t *ret_index);
