/*
 * A launch specification: everything that has to be so when a VMM begins to run. Drivers fill it, one function
 * executes it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/process.h"

enum { VM_LAUNCH_FDS_MAX = 16 };

struct vm_launch {
	char *path;  /* of the program */
	char **argv; /* argc of them, and NULL */
	size_t argc;
	/* Owned; in the child each has the number beside it. Closed by vm_launch() and vm_launch_fini(). */
	struct process_fd fds[VM_LAUNCH_FDS_MAX];
	size_t fd_count;
	uint64_t address_space_max; /* bytes; 0: no limit */
	uint64_t file_size_max;	    /* bytes that any one file may grow to; 0: no limit */
};

void vm_launch_init(struct vm_launch *l, const char *path);
void vm_launch_fini(struct vm_launch *l);
void vm_launch_arg(struct vm_launch *l, const char *fmt, ...) printf_like(2, 3);
/* Takes fd; gives the number that it has in the child, for use in an argument. */
int vm_launch_fd(struct vm_launch *l, int fd);
/* Takes fd, which becomes standard output and standard error. */
void vm_launch_output(struct vm_launch *l, int fd);

/*
 * Executes it: no new privileges, no core, the limits, no environment, no descriptor but those named; killed when the
 * calling thread ends. The descriptors are closed here, so that each end of file means that the VMM is gone.
 */
int vm_launch(struct vm_launch *l, struct process *ret, struct err *err) must_check;
