/*
 * QMP, by which QEMU is told what to do and tells what happened: a line of JSON per message, in both directions.
 * What comes from QEMU is hostile until it has passed here: a guest may have taken it over.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/str.h"

enum { QMP_LINE_MAX = 64 * 1024 }; /* without the newline; ours and QEMU's answers have a few hundred bytes */

enum qmp_type {
	QMP_GREETING,
	QMP_DONE,   /* of a command: data is what it returned */
	QMP_FAILED, /* of a command: text is why */
	QMP_EVENT,  /* text is its name, data what it carries */
};

struct qmp_message {
	enum qmp_type type;
	struct js *tree;
	const struct js *data; /* in the tree; NULL: none */
	const char *text;      /* in the tree; never NULL */
};

/* Release with qmp_message_fini(). */
int qmp_message_decode(struct str line, struct qmp_message *ret, struct err *err) must_check;
void qmp_message_fini(struct qmp_message *m);
AUTOVAR_DEFINE(qmp_message)

/* Appends a line. `arguments` (or NULL) is taken. */
void qmp_command_encode(const char *command, struct js *arguments, struct buf *out);
