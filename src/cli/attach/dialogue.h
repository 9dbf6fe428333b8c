/*
 * What is said between us and the process at the other end of a session (proto/session_frame.h), whatever connection it
 * takes: bytes that came become what they mean, what we have to say becomes bytes to be sent, kept until the other end
 * has them (proto/session_replay.h). Credit both ways is counted here, so memory has a bound. No descriptor, no clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "proto/session_frame.h"

struct dialogue;

struct dialogue *dialogue_new(void) must_check;
/* What was typed may be a password: wiped. */
void dialogue_free(struct dialogue *d);
AUTOPTR_DEFINE(dialogue)

/* There is a connection: bytes come and go on it from its beginning, what the one before left half is forgotten. */
void dialogue_connected(struct dialogue *d);
/* There was one before: the next has to say so. */
bool dialogue_resumes(const struct dialogue *d);

/* --- what comes --- */

enum dialogue_event {
	DIALOGUE_STARTED = 1,
	DIALOGUE_OUTPUT, /* of `stream`, `bytes`: say dialogue_written() when they are */
	DIALOGUE_NOTICE, /* `bytes` are a text for the person */
	DIALOGUE_GONE,	 /* the host's connection is lost, and it may come back */
	DIALOGUE_EXIT,	 /* `exit`; nothing comes behind it */
};

struct dialogue_said {
	enum session_stream stream;
	struct str bytes; /* these and the texts of `exit`: good until the next call */
	struct session_exit exit;
	bool torn; /* ... is what the control plane knows: the host did not come again, and what it still had is lost */
};

/* Takes bytes off the front of *bytes: an enum dialogue_event, then call again with the rest; 0: all is taken.
 * Negative: the other end broke the rules. */
int dialogue_hear(struct dialogue *d, struct str *bytes, struct dialogue_said *ret, struct err *err) must_check;
bool dialogue_started(const struct dialogue *d);
bool dialogue_exited(const struct dialogue *d);

/* So much of its output has left us, or nobody will ever read it. */
void dialogue_written(struct dialogue *d, enum session_stream stream, size_t bytes);
/* It has ended, and all of its output is written. */
bool dialogue_over(const struct dialogue *d);

/* --- what we say --- */

/* How many bytes of input it takes now. */
size_t dialogue_room(const struct dialogue *d);
/* At most so many. None: that was the end. */
void dialogue_input(struct dialogue *d, struct str bytes);
void dialogue_signal(struct dialogue *d, int number);
void dialogue_winsize(struct dialogue *d, const struct session_winsize *size);

/* What is to be sent now; say how much was. */
struct str dialogue_unsent(const struct dialogue *d);
void dialogue_sent(struct dialogue *d, size_t len);
