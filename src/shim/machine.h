/*
 * A running VMM on a loop: launched, its channel connected, its console's end kept, its death noticed and measured.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "base/process.h"
#include "net/loop.h"
#include "vm/driver.h"

struct machine;

struct machine_ops {
	void (*connected)(void *ctx, int fd); /* once; takes fd: the guest channel's byte stream */
	/* VM_NEWS_UP, _RUNS, _REFUSED, as they come. */
	void (*told)(void *ctx, enum vm_news news, const char *text);
	/* The VM stands still, since the host's disk has no room for what it writes, and is tried again: called with
	 * true for each try that failed, with false when it ran again for a while. */
	void (*stalled)(void *ctx, bool stalled);
	/* Once, the last call: the VMM has ended and is reaped. It may call machine_last_words(), not machine_free().
	 */
	void (*ended)(void *ctx, const struct process_exit *exit);
};

int machine_start(struct loop *loop, const struct vm_driver *driver, const struct vm_spec *spec,
		  const struct machine_ops *ops, void *ctx, struct machine **ret, struct err *err) must_check;
/* The VM's window (proto/guest_window.h), borrowed. */
int machine_window(const struct machine *m);
/* The VM stands still until it is woken: a spare. What is sent to it meanwhile waits. */
int machine_hold(struct machine *m, struct err *err) must_check;
int machine_wake(struct machine *m, struct err *err) must_check;
/* Of the host's, its part of what it shares with others; 0: not known. */
int64_t machine_memory(const struct machine *m);
/* The VMM is killed at once; `ended` follows. */
void machine_kill(struct machine *m);
/* The last line that kernel or VMM printed, made fit to be shown; "" where there was none. */
const char *machine_last_words(struct machine *m);
/* What was printed so far is no news any more: the guest is up. */
void machine_forget_words(struct machine *m);
/* A VMM that still runs is killed and waited for. */
void machine_free(struct machine *m);
AUTOPTR_DEFINE(machine)
