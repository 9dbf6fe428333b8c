/*
 * The way of one VM into the host's network: `passt`, a process without any right that speaks Ethernet with the VM's
 * device on one side and opens the host's sockets on the other. It ends when the device's stream is closed, so it never
 * outlives its VM and its shim.
 *
 *	passt_prepare(&p, err)             nothing runs yet
 *	passt_ask(&p, err)                 a question that only a passt in working order answers
 *	vm_launch(&p.launch, ...)          it runs; answers make p.vm_fd readable
 *	passt_answered(&p, err)            0: it works; p.vm_fd is for struct vm_spec
 *
 * What stays reachable by it: see docs/operations.md. Loopback of the host, and addresses that stand for it, do not.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_frame.h"
#include "vm/launch.h"

#define PASST_PROGRAM "passt"

struct passt {
	struct vm_launch launch;
	int vm_fd;		      /* the VM's side; non-blocking until passt_answered() */
	int words_fd;		      /* non-blocking pipe: its complaints */
	struct guest_network network; /* of the guest, for its hello; the hardware address is random */
	struct buf answer;	      /* so far */
};

/* The program's path; free it. ERR_UNAVAILABLE names the package. */
int passt_find(char **ret, struct err *err) must_check;
int passt_prepare(struct passt *ret, struct err *err) must_check;
void passt_fini(struct passt *p);
AUTOVAR_DEFINE(passt)

int passt_ask(struct passt *p, struct err *err) must_check;
enum { PASST_NOT_YET = 1 };
/* After vm_fd became readable. */
int passt_answered(struct passt *p, struct err *err) must_check;
/* All of that, with one that is ended again: whether jobs could have it on this host. Blocks, 3 s at most. */
int passt_probe(struct err *err) must_check;
/* What it complained of, in one line: the last `words` of it without what is no complaint. */
void passt_complaint(struct str words, struct buf *ret);
