/*
 * nimbus doctor, from the inside: a table of checks, each a function that looks at one thing, says what it found, and
 * names what mends it. The tables stand by theme in doctor_machine.c (what jobs need of this machine), doctor_data.c
 * (what Nimbus keeps here) and doctor_server.c (what answers elsewhere); doctor.c runs them.
 */
#pragma once

#include "cli/session.h"

enum verdict { CHECK_OK, CHECK_WARN, CHECK_FAIL };

/* What one check found. */
struct finding {
	struct buf message;
	const char *fix; /* a command, or what to do; lives as long as the call */
};
void say(struct finding *f, const char *fmt, ...) printf_like(2, 3);

struct doctor {
	struct session *session;
	struct arena *arena;
	struct control_settings control;
	struct agent_settings agent;
	struct logging_settings logging;
	char *assets_dir;
	bool demanded; /* no server found is a failure too */
	bool running;  /* `nimbus up` runs in this data directory */
};

struct doctor_check {
	const char *name;
	enum verdict (*look)(struct doctor *d, struct finding *f);
	/* What --fix may do without asking: it destroys nothing and stops nothing. Or NULL. */
	int (*mend)(struct doctor *d, struct err *err);
};

struct doctor_table {
	const struct doctor_check *checks;
	size_t count;
};
extern const struct doctor_table doctor_machine;
extern const struct doctor_table doctor_data;
extern const struct doctor_table doctor_server;

/* Every check of this configuration: an array of {name, status, message, fix, fixed}. Where the configuration itself is
 * wrong nothing else is looked at. */
struct doctor_opts {
	bool demanded;
	bool mend;
};
int doctor_examine(struct command_call *call, const struct doctor_opts *opts, struct js **ret, struct err *err)
	must_check;

/* A small file of /proc or /sys, without white space at its ends; NULL where there is none. Lives as long as the call.
 */
const char *read_small(struct doctor *d, const char *path);
