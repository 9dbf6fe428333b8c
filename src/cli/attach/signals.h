/*
 * The signals that we get, on a loop, and what each of them means to the process and to us.
 *
 * Ctrl-C is from a person who means it more each time: the first goes to the process, the second cancels the job, the
 * third leaves. Before the process runs there is nobody for the first, and a job that is not ours cannot be cancelled.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "net/loop.h"

struct signals;

typedef void signals_fn(void *ctx, int number);

/* From now on they come here, and do nothing else. */
int signals_new(struct loop *loop, signals_fn *fn, void *ctx, struct signals **ret, struct err *err) must_check;
/* What comes from here on does what it always does. NULL is fine. */
void signals_free(struct signals *s);
AUTOPTR_DEFINE(signals)

struct signals_scene {
	bool started; /* the process runs */
	bool tty;     /* and has a terminal, which is ours */
	bool own_job;
	unsigned interrupts; /* so far; counted here */
};

/* To be done in this order. */
enum {
	SIGNALS_TAKE_TERMINAL = 1, /* somebody else had it meanwhile */
	SIGNALS_SEND = 2,	   /* the signal, to the process */
	SIGNALS_SEND_SIZE = 4,	   /* of the terminal */
	SIGNALS_CANCEL = 8,	   /* the job */
	SIGNALS_LEAVE = 16,
};
unsigned signals_meaning(int number, struct signals_scene *scene);
