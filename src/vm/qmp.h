/*
 * One QMP connection: lines in and out of a non-blocking socket (proto/qmp_message.h). Commands may be sent before the
 * greeting has come; QEMU takes them in order.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/qmp_message.h"

struct qmp {
	int fd; /* -1: none */
	struct buf in;
	size_t scanned; /* bytes of `in` that have no newline */
};

/* Takes fd. */
void qmp_init(struct qmp *q, int fd);
void qmp_fini(struct qmp *q);

/* `arguments` (or NULL) is taken. A QEMU that does not read fails it: commands are few and short. */
int qmp_send(struct qmp *q, const char *command, struct js *arguments, struct err *err) must_check;
/* The same with a descriptor, which stays the caller's; "getfd" gives it a name. */
int qmp_send_fd(struct qmp *q, const char *command, struct js *arguments, int fd, struct err *err) must_check;
/* Takes what has come, a bounded part of it, for qmp_next(). ERR_UNAVAILABLE: QEMU is gone. */
int qmp_receive(struct qmp *q, struct err *err) must_check;
enum { QMP_MESSAGE = 1 };
/* QMP_MESSAGE: *ret is the next one. 0: no whole one was received. Negative: QEMU talks nonsense. */
int qmp_next(struct qmp *q, struct qmp_message *ret, struct err *err) must_check;

/* Blocking: the answer to the command that was sent first of those without one. As qmp_call() does. */
int qmp_answer(struct qmp *q, int64_t deadline_ns, struct qmp_message *ret, struct err *err) must_check;
/* Blocking, until deadline_ns (monotonic); events that come meanwhile are dropped. What the command returned is in
 * ret->data; ERR_UNAVAILABLE with QEMU's own words where it failed. */
int qmp_call(struct qmp *q, const char *command, struct js *arguments, int64_t deadline_ns, struct qmp_message *ret,
	     struct err *err) must_check;
