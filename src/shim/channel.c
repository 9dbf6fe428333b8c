#include "shim/channel.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/secret.h"

enum {
	OUTPUTS = 2,
	READ_SIZE = 64 * 1024,
	GRANT_LEAST = GUEST_CREDIT_START / 4, /* small grants would cost a frame each */
	UNSENT_MAX = 256 * 1024,	      /* a guest that reads nothing */
	BULK_MAX = 64 * 1024,		      /* streams wait while so much is unsent: what else is sent does not */
	SILENCE_DEFAULT_S = 120,
	DRAIN_DEFAULT_S = 10,
};

/* What a clock may be late by: no longer than its news were on their way and back. */
#define CLOCK_ROUND_NS (40 * NS_PER_MS)
enum { CLOCK_TRIES = 10 };

/* What was reached; a frame is taken in some states only (table below). */
enum state {
	STATE_SILENT,
	STATE_REHEARSING,
	STATE_REHEARSED,
	STATE_HELLO,
	STATE_READY,
	STATE_SENT,
	STATE_RUNNING,
	STATE_EXITED,
	STATE_DONE,
	STATE_OVER
};

struct output {
	int64_t credit; /* the guest may send so many bytes yet */
	int64_t owed;	/* arrived and not granted again */
	bool ended;
};

struct channel {
	struct channel_opts opts;
	int fd;
	enum state state;
	struct guest_decoder decoder;
	struct loop_source *io;
	struct loop_source *hello_timer;
	struct loop_source *silence_timer;
	struct loop_source *drain_timer;
	struct buf unsent;
	struct output outputs[OUTPUTS];
	struct streams *streams;
	bool room;
	uint64_t output_seq;
	struct guest_exit exit;
	int64_t heard_ns;
	uint64_t pings;
	int64_t clock_told_ns; /* when the guest was told the time last */
	int clock_tries;
	bool clock_near;
	bool got_bytes; /* since the last silence timer */
};

/* --- the end --- */

static void stop(struct channel *c)
{
	c->state = STATE_OVER;
	loop_source_free(TAKE(c->io));
	loop_source_free(TAKE(c->hello_timer));
	loop_source_free(TAKE(c->silence_timer));
	loop_source_free(TAKE(c->drain_timer));
}

static void lose(struct channel *c, const struct err *err)
{
	bool done = c->state == STATE_DONE;

	if (c->state == STATE_OVER)
		return;
	stop(c);
	streams_lost(c->streams);
	if (!done)
		c->opts.ops->lost(c->opts.ctx, err);
}

/* The job is over; streams go on. */
static void finish(struct channel *c)
{
	c->state = STATE_DONE;
	loop_source_free(TAKE(c->drain_timer));
	c->opts.ops->finished(c->opts.ctx, &c->exit);
}

/* --- sending --- */

/* Sent bytes may hold secrets of a job. */
static void drop_sent(struct channel *c, size_t len)
{
	size_t left = c->unsent.len - len;

	memmove(c->unsent.data, c->unsent.data + len, left);
	secret_wipe(c->unsent.data + left, len);
	c->unsent.len = left;
}

/* As much as the channel takes. A closed channel is noticed by reading. */
static void flush(struct channel *c)
{
	while (c->unsent.len > 0) {
		ssize_t sent = send(c->fd, c->unsent.data, c->unsent.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return;
		drop_sent(c, (size_t)sent);
	}
}

/* What waits, then what streams have, while there is room; the rest when the channel takes more. */
static void transmit(struct channel *c)
{
	do
		flush(c);
	while (c->state != STATE_OVER && streams_fill(c->streams, &c->unsent, BULK_MAX));
	if (c->io != NULL)
		loop_fd_set_events(c->io, c->unsent.len > 0 ? LOOP_READ | LOOP_WRITE : LOOP_READ);
}

int channel_send_job(struct channel *c, const struct guest_job *job, struct err *err)
{
	if (c->state != STATE_READY)
		return err_set(err, ERR_CONFLICT, "the guest is not ready for a job");
	int rc = guest_job_encode(job, &c->unsent, err);
	if (rc < 0)
		return rc;
	c->state = STATE_SENT;
	transmit(c);
	return 0;
}

void channel_send_signal(struct channel *c, int signal, int64_t kill_after_ns)
{
	if (c->state == STATE_OVER)
		return;
	guest_signal_encode(&(struct guest_signal){.signal = (uint32_t)signal, .kill_after_ns = kill_after_ns},
			    &c->unsent);
	transmit(c);
}

struct streams *channel_streams(struct channel *c)
{
	return c->streams;
}

static void on_wake(void *ctx)
{
	transmit(ctx);
}

static void on_service(void *ctx, const char *name, struct stream *st, struct err *err)
{
	struct channel *c = ctx;

	if (c->opts.ops->service != NULL)
		c->opts.ops->service(c->opts.ctx, name, st, err);
}

static void grant(struct channel *c)
{
	for (size_t i = 0; i < OUTPUTS; i++) {
		struct output *st = &c->outputs[i];
		if (!c->room || st->owed < GRANT_LEAST)
			continue;
		guest_credit_encode((uint16_t)(GUEST_STDOUT + i), &(struct guest_credit){.bytes = (uint32_t)st->owed},
				    &c->unsent);
		st->credit += st->owed;
		st->owed = 0;
	}
	transmit(c);
}

void channel_room(struct channel *c, bool room)
{
	if (c->state == STATE_OVER)
		return;
	/* The wait for the end of the output begins anew when it can flow again. */
	if (room && !c->room && c->drain_timer != NULL)
		loop_timer_set(c->drain_timer, clock_monotonic_ns() + c->opts.drain_ns);
	c->room = room;
	grant(c);
}

void channel_excuse(struct channel *c)
{
	c->heard_ns = clock_monotonic_ns();
}

/* --- what the guest says --- */

/* --- the guest's clock --- */

static void tell_time(struct channel *c)
{
	c->clock_told_ns = clock_monotonic_ns();
	c->clock_tries++;
	guest_ping_encode(&(struct guest_ping){.token = c->pings++, .wall_ns = clock_unix_ns()}, &c->unsent);
	transmit(c);
}

/* The guest has answered to what told it the time. */
static void judge_clock(struct channel *c)
{
	if (clock_monotonic_ns() - c->clock_told_ns <= CLOCK_ROUND_NS || c->clock_tries == CLOCK_TRIES)
		c->clock_near = true;
	else
		tell_time(c);
}

bool channel_clock_is_near(const struct channel *c)
{
	return c->clock_near;
}

static int on_ack(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	struct guest_ack ack;

	int rc = guest_ack_decode(frame->payload, &ack, err);
	if (rc < 0)
		return rc;
	if (ack.version != GUEST_PROTOCOL_VERSION)
		return err_set(err, ERR_INVALID, "the guest speaks version %u of the protocol, not %d", ack.version,
			       GUEST_PROTOCOL_VERSION);
	if ((ack.done & GUEST_DONE_NEEDED) != GUEST_DONE_NEEDED)
		return err_set(err, ERR_INVALID, "the guest could not be made unique (done: %#x)", ack.done);
	c->state = STATE_READY;
	loop_source_free(TAKE(c->hello_timer));
	judge_clock(c);
	streams_ready(c->streams);
	c->opts.ops->ready(c->opts.ctx, &ack);
	return 0;
}

static int on_rehearsed(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	struct guest_rehearsal m;

	int rc = guest_rehearsal_decode(frame->payload, &m, err);
	if (rc < 0)
		return rc;
	c->state = STATE_REHEARSED;
	c->opts.ops->rehearsed(c->opts.ctx);
	return 0;
}

static int on_started(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	struct guest_started started;

	int rc = guest_started_decode(frame->payload, &started, err);
	if (rc < 0)
		return rc;
	c->state = STATE_RUNNING;
	c->opts.ops->started(c->opts.ctx);
	return 0;
}

static bool all_ended(const struct channel *c)
{
	return c->outputs[0].ended && c->outputs[1].ended;
}

static int on_output(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	struct guest_output output;

	int rc = guest_output_decode(frame->payload, &output, err);
	if (rc < 0)
		return rc;
	if (frame->stream != GUEST_STDOUT && frame->stream != GUEST_STDERR)
		return err_set(err, ERR_INVALID, "the guest sent output of an unknown stream %u", frame->stream);
	struct output *st = &c->outputs[frame->stream - GUEST_STDOUT];
	if (st->ended)
		return err_set(err, ERR_INVALID, "the guest sent output after its end");
	if (output.seq != c->output_seq)
		return err_set(err, ERR_INVALID, "the guest's output has a gap");
	c->output_seq++;
	st->credit -= (int64_t)output.bytes.len;
	if (st->credit < 0)
		return err_set(err, ERR_INVALID, "the guest sent more output than it was allowed to");
	st->owed += (int64_t)output.bytes.len;
	st->ended = output.bytes.len == 0;
	if (!st->ended)
		c->opts.ops->output(c->opts.ctx, frame->stream == GUEST_STDOUT ? LOG_STREAM_STDOUT : LOG_STREAM_STDERR,
				    output.bytes);
	return 0;
}

/* Nothing but pongs comes for long: its output may wait for credit, which is no fault of the guest. */
static void on_drain_timer(void *ctx)
{
	struct channel *c = ctx;

	if (c->room)
		finish(c);
}

static int on_exited(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	int rc = guest_exit_decode(frame->payload, &c->exit, err);
	if (rc < 0)
		return rc;
	c->state = STATE_EXITED;
	return loop_add_timer(c->opts.loop, clock_monotonic_ns() + c->opts.drain_ns, LOOP_NORMAL, on_drain_timer, c,
			      &c->drain_timer, err);
}

/* The guest's own figures are not used. */
static int on_usage(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	struct guest_usage usage;

	(void)c;
	return guest_usage_decode(frame->payload, &usage, err);
}

static int on_pong(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	uint64_t token = 0;

	int rc = guest_pong_decode(frame->payload, &token, err);
	if (rc < 0)
		return rc;
	if (token >= c->pings)
		return err_set(err, ERR_INVALID, "the guest answers what it was not asked");
	if (c->clock_near)
		return 0;
	judge_clock(c);
	if (c->clock_near && c->opts.ops->timely != NULL)
		c->opts.ops->timely(c->opts.ctx);
	return 0;
}

/* Its text goes to people: only what can be shown. */
static int on_fault(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	char text[200];
	size_t len = frame->payload.len < sizeof(text) ? frame->payload.len : sizeof(text);

	(void)c;
	for (size_t i = 0; i < len; i++) {
		char byte = frame->payload.data[i];
		if (byte < ' ' || byte > '~')
			byte = '?';
		text[i] = byte;
	}
	return err_set(err, ERR_UNAVAILABLE, "the guest says: %.*s", (int)len, text);
}

static int on_stream(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	return streams_take(c->streams, frame, err);
}

#define IN(state) (1U << STATE_##state)
#define IN_READY (IN(READY) | IN(SENT) | IN(RUNNING) | IN(EXITED) | IN(DONE))

static const struct {
	int (*handle)(struct channel *c, const struct guest_frame *frame, struct err *err);
	unsigned states;
} handlers[] = {
	[GUEST_REHEARSED] = {on_rehearsed, IN(REHEARSING)},
	[GUEST_ACK] = {on_ack, IN(HELLO)},
	[GUEST_STARTED] = {on_started, IN(SENT)},
	[GUEST_OUTPUT] = {on_output, IN(RUNNING) | IN(EXITED)},
	[GUEST_USAGE] = {on_usage, IN(READY) | IN(SENT) | IN(RUNNING)},
	[GUEST_EXIT] = {on_exited, IN(RUNNING)},
	[GUEST_PONG] = {on_pong, IN_READY},
	[GUEST_FAULT] = {on_fault, IN(HELLO) | IN_READY},
	[GUEST_OPEN] = {on_stream, IN_READY},
	[GUEST_DATA] = {on_stream, IN_READY},
	[GUEST_CREDIT] = {on_stream, IN_READY},
	[GUEST_CLOSE] = {on_stream, IN_READY},
};

static int take_frame(struct channel *c, const struct guest_frame *frame, struct err *err)
{
	size_t type = (size_t)frame->type;

	if (type >= ARRAY_LEN(handlers) || (handlers[type].states >> c->state & 1) == 0)
		return err_set(err, ERR_INVALID, "the guest sent '%s' when it may not", guest_frame_name((int)type));
	return handlers[type].handle(c, frame, err);
}

/* --- receiving --- */

/* A frame may end the channel: then the rest of the bytes is nobody's. */
static void take_bytes(struct channel *c, struct str input)
{
	struct guest_frame frame;
	struct err err = {0};

	while (c->state != STATE_OVER) {
		int rc = guest_decode(&c->decoder, &input, &frame, &err);
		if (rc == 0)
			break;
		if (rc == GUEST_FRAME_READY)
			rc = take_frame(c, &frame, &err);
		if (rc < 0) {
			lose(c, &err);
			return;
		}
	}
	if (c->state == STATE_OVER)
		return;
	c->opts.ops->settled(c->opts.ctx);
	if (c->state == STATE_EXITED && all_ended(c))
		finish(c);
	if (c->state != STATE_OVER)
		grant(c);
}

enum receive { RECEIVED, NOTHING, CLOSED };

static enum receive receive(struct channel *c)
{
	static char bytes[READ_SIZE];
	ssize_t got = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return NOTHING;
	if (got <= 0)
		return CLOSED;
	c->got_bytes = true;
	/* Whatever it is: an answer comes after a hello only. */
	if (c->state == STATE_SILENT) {
		c->opts.ops->listens(c->opts.ctx);
		return RECEIVED;
	}
	take_bytes(c, (struct str){bytes, (size_t)got});
	return RECEIVED;
}

static void on_io(void *ctx, unsigned events)
{
	struct channel *c = ctx;
	struct err err = {0};

	if ((events & LOOP_WRITE) != 0)
		transmit(c);
	if (c->unsent.len > UNSENT_MAX) {
		(void)err_set(&err, ERR_UNAVAILABLE, "the guest reads nothing of what it is sent");
		lose(c, &err);
		return;
	}
	/* Closed: why is told by the VMM's end, which follows. Until then there is nothing more to hear. */
	if ((events & (LOOP_READ | LOOP_HANGUP)) != 0 && receive(c) == CLOSED)
		loop_source_free(TAKE(c->io));
}

void channel_close(struct channel *c)
{
	struct err err = {0};

	while (c->state != STATE_OVER && receive(c) == RECEIVED)
		;
	if (c->state == STATE_EXITED)
		finish(c);
	(void)err_set(&err, ERR_UNAVAILABLE, "the VM is gone");
	lose(c, &err);
}

static void on_hello_timer(void *ctx)
{
	struct channel *c = ctx;
	struct err err = {0};

	/* What waits unread counts: it may be us who were stopped. */
	if (receive(c) == RECEIVED && c->state != STATE_SILENT && c->state != STATE_HELLO)
		return;
	(void)err_set(&err, ERR_TIMEOUT, "the guest did not answer in time");
	lose(c, &err);
}

/* Every half of the silence allowed: with nothing heard in the last half, a ping; still nothing, lost. */
static void on_silence_timer(void *ctx)
{
	struct channel *c = ctx;
	struct err err = {0};
	int64_t now = clock_monotonic_ns();

	/* What waits unread counts: it may be us who were stopped. */
	if (receive(c) == RECEIVED || c->got_bytes || c->state == STATE_REHEARSED)
		c->heard_ns = now;
	if (c->state == STATE_OVER)
		return;
	c->got_bytes = false;
	if (now - c->heard_ns >= c->opts.silence_ns) {
		(void)err_set(&err, ERR_TIMEOUT, "the guest has fallen silent");
		lose(c, &err);
		return;
	}
	if (c->state > STATE_HELLO) {
		guest_ping_encode(&(struct guest_ping){.token = c->pings++}, &c->unsent);
		transmit(c);
	}
	loop_timer_set(c->silence_timer, now + c->opts.silence_ns / 2);
}

/* --- life --- */

static int add_sources(struct channel *c, struct err *err)
{
	struct loop *l = c->opts.loop;

	int rc = loop_add_fd(l, c->fd, LOOP_READ, LOOP_BULK, on_io, c, &c->io, err);
	if (rc == 0)
		rc = loop_add_timer(l, c->opts.hello_deadline_ns, LOOP_NORMAL, on_hello_timer, c, &c->hello_timer, err);
	if (rc == 0)
		rc = loop_add_timer(l, c->heard_ns + c->opts.silence_ns / 2, LOOP_NORMAL, on_silence_timer, c,
				    &c->silence_timer, err);
	return rc;
}

int channel_new(const struct channel_opts *opts, struct channel **ret, struct err *err)
{
	autoptr(channel) c = xcalloc(1, sizeof(*c));

	c->opts = *opts;
	c->streams = streams_new(&(struct streams_opts){.wake = on_wake, .service = on_service, .ctx = c});
	c->fd = opts->fd;
	c->opts.silence_ns = opts->silence_ns > 0 ? opts->silence_ns : SILENCE_DEFAULT_S * NS_PER_S;
	c->opts.drain_ns = opts->drain_ns > 0 ? opts->drain_ns : DRAIN_DEFAULT_S * NS_PER_S;
	c->room = true;
	c->heard_ns = clock_monotonic_ns();
	for (size_t i = 0; i < OUTPUTS; i++)
		c->outputs[i].credit = GUEST_CREDIT_START;
	int rc = add_sources(c, err);
	if (rc < 0)
		return rc;
	/* Room at once: growing later would leave a copy of secrets behind. */
	(void)buf_reserve(&c->unsent, UNSENT_MAX + 2 * GUEST_PAYLOAD_MAX);
	*ret = TAKE(c);
	return 0;
}

void channel_rehearse(struct channel *c, uint64_t epoch)
{
	if (c->state != STATE_SILENT)
		return;
	c->state = STATE_REHEARSING;
	guest_decoder_for_host(&c->decoder, epoch);
	guest_rehearse_encode(epoch, &c->unsent);
	transmit(c);
}

void channel_wait_until(struct channel *c, int64_t deadline_ns)
{
	if (c->hello_timer != NULL)
		loop_timer_set(c->hello_timer, deadline_ns);
}

void channel_hello(struct channel *c, const struct guest_hello *hello)
{
	if (c->state > STATE_REHEARSED)
		return;
	c->heard_ns = clock_monotonic_ns();
	c->state = STATE_HELLO;
	guest_decoder_for_host(&c->decoder, hello->epoch);
	c->clock_told_ns = clock_monotonic_ns();
	guest_hello_encode(hello, &c->unsent);
	transmit(c);
}

void channel_free(struct channel *c)
{
	if (c == NULL)
		return;
	stop(c);
	streams_free(c->streams);
	if (c->unsent.data != NULL)
		secret_wipe(c->unsent.data, c->unsent.cap);
	buf_fini(&c->unsent);
	fd_close(&c->fd);
	free(c);
}
