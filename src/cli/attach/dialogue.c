#include "cli/attach/dialogue.h"

#include <assert.h>

#include "base/mem.h"
#include "proto/session_replay.h"

enum {
	UNSENT_MAX = 256 * 1024, /* of ours, before it takes no more input */
	CREDIT_STEP = 64 * 1024, /* credit is given back in pieces of so much */
};

struct output {
	size_t unwritten;
	uint32_t owed; /* credit that is not given back yet */
};

struct dialogue {
	struct session_decoder decoder;
	struct session_replay replay;
	bool connected; /* now, or before */
	bool started;
	bool exited;
	uint32_t input_credit;
	struct output outputs[SESSION_STREAM_STDERR + 1]; /* but for STDIN */
};

struct dialogue *dialogue_new(void)
{
	struct dialogue *d = xcalloc(1, sizeof(*d));

	d->input_credit = SESSION_CREDIT_START;
	return d;
}

void dialogue_free(struct dialogue *d)
{
	if (d == NULL)
		return;
	session_replay_fini(&d->replay);
	free(d);
}

void dialogue_connected(struct dialogue *d)
{
	session_decoder_init(&d->decoder, SESSION_FROM_SHIM);
	session_replay_connected(&d->replay, d->connected);
	d->connected = true;
}

bool dialogue_resumes(const struct dialogue *d)
{
	return d->connected;
}

bool dialogue_started(const struct dialogue *d)
{
	return d->started;
}

bool dialogue_exited(const struct dialogue *d)
{
	return d->exited;
}

bool dialogue_over(const struct dialogue *d)
{
	return d->exited && d->outputs[SESSION_STREAM_STDOUT].unwritten == 0 &&
	       d->outputs[SESSION_STREAM_STDERR].unwritten == 0;
}

/* --- what comes --- */

static int hear_started(struct dialogue *d, struct str payload, struct dialogue_said *ret, struct err *err)
{
	struct session_started m;

	(void)ret;
	int rc = session_started_decode(payload, &m, err);
	if (rc < 0)
		return rc;
	d->started = true;
	return DIALOGUE_STARTED;
}

static int hear_output(struct dialogue *d, enum session_stream stream, struct str bytes, struct dialogue_said *ret,
		       struct err *err)
{
	struct output *o = &d->outputs[stream];

	if (o->unwritten + bytes.len > SESSION_CREDIT_START)
		return err_set(err, ERR_INTERNAL, "more output came than there was credit for");
	o->unwritten += bytes.len;
	ret->stream = stream;
	ret->bytes = bytes;
	return DIALOGUE_OUTPUT;
}

static int hear_stdout(struct dialogue *d, struct str bytes, struct dialogue_said *ret, struct err *err)
{
	return hear_output(d, SESSION_STREAM_STDOUT, bytes, ret, err);
}

static int hear_stderr(struct dialogue *d, struct str bytes, struct dialogue_said *ret, struct err *err)
{
	return hear_output(d, SESSION_STREAM_STDERR, bytes, ret, err);
}

static int hear_credit(struct dialogue *d, struct str payload, struct dialogue_said *ret, struct err *err)
{
	struct session_credit m;

	(void)ret;
	int rc = session_credit_decode(payload, &m, err);
	if (rc < 0)
		return rc;
	if (m.stream == SESSION_STREAM_STDIN && m.bytes < INT32_MAX - d->input_credit)
		d->input_credit += m.bytes;
	return 0;
}

static int hear_notice(struct dialogue *d, struct str text, struct dialogue_said *ret, struct err *err)
{
	(void)d;
	(void)err;
	ret->bytes = text;
	return DIALOGUE_NOTICE;
}

static int hear_gone(struct dialogue *d, struct str text, struct dialogue_said *ret, struct err *err)
{
	(void)d;
	(void)text;
	(void)ret;
	(void)err;
	return DIALOGUE_GONE;
}

/* It waits for our word that we have heard all. */
static int hear_exit(struct dialogue *d, struct str payload, struct dialogue_said *ret, struct err *err)
{
	int rc = session_exit_decode(payload, &ret->exit, err);

	if (rc < 0)
		return rc;
	d->exited = true;
	ret->torn = d->replay.waits;
	session_replay_tell(&d->replay);
	return DIALOGUE_EXIT;
}

typedef int hear_fn(struct dialogue *d, struct str payload, struct dialogue_said *ret, struct err *err);

/* By frame type. What is not here means nothing to us. */
static hear_fn *const meanings[] = {
	[SESSION_STARTED] = hear_started, [SESSION_STDOUT] = hear_stdout, [SESSION_STDERR] = hear_stderr,
	[SESSION_CREDIT] = hear_credit,	  [SESSION_EXIT] = hear_exit,	  [SESSION_NOTICE] = hear_notice,
	[SESSION_GONE] = hear_gone,
};

static int hear_frame(struct dialogue *d, const struct session_frame *f, struct dialogue_said *ret, struct err *err)
{
	hear_fn *fn = (size_t)f->type < ARRAY_LEN(meanings) ? meanings[f->type] : NULL;

	int rc = session_replay_take(&d->replay, f, err);
	if (rc == SESSION_REPLAY_OURS)
		return 0;
	return rc == 0 && fn != NULL ? fn(d, f->payload, ret, err) : rc;
}

int dialogue_hear(struct dialogue *d, struct str *bytes, struct dialogue_said *ret, struct err *err)
{
	struct session_frame frame;
	int rc = 0;

	while (!d->exited && rc == 0) {
		rc = session_decode(&d->decoder, bytes, &frame, err);
		if (rc != SESSION_FRAME_READY)
			return rc;
		rc = hear_frame(d, &frame, ret, err);
	}
	return rc;
}

void dialogue_written(struct dialogue *d, enum session_stream stream, size_t bytes)
{
	struct output *o = &d->outputs[stream];

	assert(bytes <= o->unwritten);
	o->unwritten -= bytes;
	o->owed += (uint32_t)bytes;
	if (o->owed < CREDIT_STEP || d->exited)
		return;
	session_credit_encode(&(struct session_credit){stream, o->owed}, &d->replay.kept);
	o->owed = 0;
}

/* --- what we say --- */

size_t dialogue_room(const struct dialogue *d)
{
	return session_replay_waiting(&d->replay) < UNSENT_MAX ? d->input_credit : 0;
}

void dialogue_input(struct dialogue *d, struct str bytes)
{
	assert(bytes.len <= d->input_credit);
	d->input_credit -= (uint32_t)bytes.len;
	session_bytes_encode(SESSION_STDIN, bytes, &d->replay.kept);
}

void dialogue_signal(struct dialogue *d, int number)
{
	session_signal_encode(&(struct session_signal){(uint32_t)number}, &d->replay.kept);
}

void dialogue_winsize(struct dialogue *d, const struct session_winsize *size)
{
	session_winsize_encode(size, &d->replay.kept);
}

struct str dialogue_unsent(const struct dialogue *d)
{
	return session_replay_unsent(&d->replay);
}

void dialogue_sent(struct dialogue *d, size_t len)
{
	session_replay_sent(&d->replay, len);
}
