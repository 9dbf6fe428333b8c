/*
 * What an `up` leaves to the program that takes its place in the same process (execve(2)): its lock, the sockets of the
 * roles, and which processes they are. It lies in memory, behind a descriptor whose number is the value of --resume-fd.
 */
#pragma once

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "up/sockets.h"

struct handover {
	int lock_fd;
	pid_t pids[UP_ROLE_COUNT]; /* 0: it has none just now */
	struct sockets sockets;
};
/* Closes nothing that was taken out (lock_fd -1). */
void handover_fini(struct handover *h);
AUTOVAR_DEFINE(handover)

/* Both what is written and what it speaks of survive execve() from here on; handover_withdraw() takes that back. */
int handover_write(const struct handover *h, int *ret_fd, struct err *err) must_check;
void handover_withdraw(const struct handover *h);
/* Closes fd; all descriptors are close-on-exec again. */
int handover_read(int fd, struct handover *ret, struct err *err) must_check;
