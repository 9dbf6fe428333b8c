/*
 * What an `up` leaves to the program that takes its place in the same process (execve(2)): its lock, the sockets of the
 * roles, and which processes they are; and itself, so that the next one can give the place back where a role does not
 * come up under it. It lies in memory, behind a descriptor whose number is the value of --resume-fd.
 */
#pragma once

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "up/sockets.h"

struct handover {
	int lock_fd;
	int previous_fd;	   /* the program that leaves this, to be executed again; -1: there is no way back */
	char *program;		   /* where new programs are put, whatever this one's file is called by now; or NULL */
	char *failure;		   /* why the place is given back; NULL: it is not */
	size_t begun;		   /* then: so many roles have been replaced, or were being */
	pid_t pids[UP_ROLE_COUNT]; /* 0: it has none just now */
	struct sockets sockets;
};
#define HANDOVER_NONE ((struct handover){.lock_fd = -1, .previous_fd = -1})
/* Closes nothing that was taken out (-1). */
void handover_fini(struct handover *h);
AUTOVAR_DEFINE(handover)

/* Both what is written and what it speaks of survive execve() from here on; handover_withdraw() takes that back. */
int handover_write(const struct handover *h, int *ret_fd, struct err *err) must_check;
void handover_withdraw(const struct handover *h);
/* Closes fd; all descriptors are close-on-exec again. */
int handover_read(int fd, struct handover *ret, struct err *err) must_check;
