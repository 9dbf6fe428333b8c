#include "guest/session.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "guest/conduits.h"
#include "guest/job.h"
#include "guest/names.h"

enum {
	OUT_MAX = 64 * 1024, /* output waits in its pipe while this much is unsent */
	OUTPUTS = 2,
	READS_MAX = 32, /* of the channel in one turn */
	NS_PER_MS_INT = 1000000,
	LAST_KILL_NS = 1000000000, /* for processes that do not die at once of SIGKILL: the exit is told without them */
	REHEARSAL_NS = 2000000000, /* what runs longer is killed */
};

struct output {
	int fd; /* -1: ended */
	uint16_t number;
	uint64_t credit;
};

struct session {
	const struct session_opts *opts;
	struct guest_decoder decoder;
	struct buf out;
	struct output outputs[OUTPUTS];
	struct conduits *conduits;
	struct job job;
	int child_fd; /* signalfd */
	uint64_t seq;
	uint32_t done;
	int64_t ready_ns;
	int64_t kill_at_ns; /* 0: no kill is due */
	int64_t conduits_at_ns;
	int64_t tell_at_ns; /* the exit is told now, whoever is left; 0: the first process lives */
	int64_t off_at_ns;  /* 0: not yet */
	bool told;	    /* the exit */
	bool over;
	bool rehearses; /* the job is none: what it says, and what is said of it, goes to nobody */
	uint64_t rehearsal_epoch;
};

static int64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fault(struct session *s, const struct err *err)
{
	guest_fault_encode(err->msg, &s->out);
}

/* --- what the host says --- */

static void end_rehearsal(struct session *s);

static int on_hello(struct session *s, const struct guest_frame *frame, struct err *err)
{
	struct guest_hello hello;
	struct guest_ack ack = {.version = GUEST_PROTOCOL_VERSION, .epoch = s->decoder.epoch};

	int rc = guest_hello_decode(frame->payload, &hello, err);
	/* Of another version: it learns ours, and that nothing is done. */
	if (rc == -ERR_UNSUPPORTED)
		guest_ack_encode(&ack, &s->out);
	if (rc < 0)
		return rc;
	if (s->rehearses)
		end_rehearsal(s);
	s->done = s->opts->ops->hello(s->opts->ops->ctx, &hello);
	if (s->opts->cgroup_fd >= 0)
		s->done |= GUEST_DONE_CGROUP;
	ack.done = s->done;
	ack.init_ns = s->opts->init_ns;
	ack.ready_ns = s->ready_ns;
	ack.ack_ns = now_ns();
	/* What another epoch left unsent is not for this host. */
	buf_clear(&s->out);
	guest_ack_encode(&ack, &s->out);
	return 0;
}

static void end_output(struct session *s, struct output *st)
{
	guest_output_encode(st->number, &(struct guest_output){.seq = s->seq++}, &s->out);
	if (st->fd >= 0)
		(void)close(st->fd);
	st->fd = -1;
}

/* Kept: what is run beside the job later has its environment. */
static int keep_job(struct str payload, struct guest_job **ret, struct err *err)
{
	static char text[GUEST_PAYLOAD_MAX];
	static struct guest_job job;

	memcpy(text, payload.data, payload.len);
	*ret = &job;
	return guest_job_decode((struct str){text, payload.len}, &job, err);
}

/* What only brings names is no reason to refuse a job. */
static void bring_names(const struct guest_job *job)
{
	struct err err = {0};

	for (size_t i = 0; i < job->servicec; i++) {
		if (strcmp(job->services[i].name, NAMES_SERVICE) == 0 && names_start(&err) < 0)
			(void)fprintf(stderr, "nimbus-guest: %s\n", err.msg);
	}
}

static int on_job(struct session *s, const struct guest_frame *frame, struct err *err)
{
	struct guest_job *job;

	if ((s->done & GUEST_DONE_NEEDED) != GUEST_DONE_NEEDED)
		return err_set(err, ERR_CONFLICT, "job refused: the hello is not all done (%#x)", s->done);
	if (s->job.pid != 0)
		return err_set(err, ERR_CONFLICT, "job refused: there is one already");
	int rc = keep_job(frame->payload, &job, err);
	if (rc == 0)
		rc = conduits_listen(s->conduits, job, err);
	if (rc == 0)
		bring_names(job);
	if (rc == 0)
		rc = job_start(job, s->opts->cgroup_fd, &s->job, err);
	if (rc < 0)
		return rc;
	s->outputs[0] = (struct output){s->job.stdout_fd, GUEST_STDOUT, GUEST_CREDIT_START};
	s->outputs[1] = (struct output){s->job.stderr_fd, GUEST_STDERR, GUEST_CREDIT_START};
	guest_started_encode(&(struct guest_started){.pid = (uint32_t)s->job.pid}, &s->out);
	conduits_job(s->conduits, job, s->job.stdin_fd);
	if (s->job.stderr_fd < 0)
		end_output(s, &s->outputs[1]);
	return 0;
}

/* --- rehearsal: a job that is none, by the ways of one --- */

/* Only while nobody is told anything: a guest that has been given an identity runs jobs. */
static int on_rehearse(struct session *s, const struct guest_frame *frame, struct err *err)
{
	static const struct guest_job job = {
		.cwd = "/",
		.argc = 3,
		.argv = {"sh", "-c", "echo; echo >&2; env true"},
		.envc = 1,
		.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}};
	struct guest_rehearsal m;

	int rc = guest_rehearsal_decode(frame->payload, &m, err);
	if (rc == 0 && (s->done != 0 || s->job.pid != 0))
		rc = err_set(err, ERR_CONFLICT, "rehearsal refused: the guest knows who it is, or rehearses already");
	if (rc < 0)
		return rc;
	int cgroup_fd = s->opts->ops->rehearse(s->opts->ops->ctx);
	s->rehearses = true;
	s->rehearsal_epoch = m.epoch;
	if (job_rehearse(&job, cgroup_fd, &s->job, err) < 0) {
		end_rehearsal(s);
		return 0;
	}
	s->outputs[0] = (struct output){s->job.stdout_fd, GUEST_STDOUT, GUEST_CREDIT_START};
	s->outputs[1] = (struct output){s->job.stderr_fd, GUEST_STDERR, GUEST_CREDIT_START};
	guest_started_encode(&(struct guest_started){.pid = (uint32_t)s->job.pid}, &s->out);
	s->kill_at_ns = now_ns() + REHEARSAL_NS;
	return 0;
}

static void ignore_other(void *ctx, pid_t pid, int status)
{
	(void)ctx;
	(void)pid;
	(void)status;
}

/* Whatever it had come to: as if it had never been. */
static void end_rehearsal(struct session *s)
{
	int64_t give_up_ns = now_ns() + LAST_KILL_NS;

	s->opts->ops->signal_all(s->opts->ops->ctx, SIGKILL);
	while (s->job.pid != 0 && !s->job.all_gone && now_ns() < give_up_ns) {
		job_reap(&s->job, ignore_other, NULL);
		if (!s->job.all_gone)
			(void)nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS_INT / 10}, NULL);
	}
	for (size_t i = 0; i < OUTPUTS; i++) {
		if (s->outputs[i].fd >= 0)
			(void)close(s->outputs[i].fd);
		s->outputs[i] = (struct output){.fd = -1};
	}
	s->job = (struct job){0};
	s->seq = 0;
	s->kill_at_ns = s->tell_at_ns = 0;
	s->told = s->rehearses = false;
	s->opts->ops->rehearsed(s->opts->ops->ctx);
	buf_clear(&s->out);
	guest_rehearsed_encode(s->rehearsal_epoch, &s->out);
}

/* --- streams, signals, credit --- */

static int on_stream(struct session *s, const struct guest_frame *frame, struct err *err)
{
	if ((s->done & GUEST_DONE_NEEDED) != GUEST_DONE_NEEDED)
		return err_set(err, ERR_CONFLICT, "stream refused: the hello is not all done (%#x)", s->done);
	return conduits_take(s->conduits, frame, err);
}

static int on_signal(struct session *s, const struct guest_frame *frame, struct err *err)
{
	struct guest_signal m;

	if (frame->stream != GUEST_CONTROL)
		return on_stream(s, frame, err);
	int rc = guest_signal_decode(frame->payload, &m, err);
	if (rc < 0 || s->job.pid == 0)
		return rc;
	s->opts->ops->signal_all(s->opts->ops->ctx, (int)m.signal);
	if (m.kill_after_ns > 0)
		s->kill_at_ns = now_ns() + m.kill_after_ns;
	return 0;
}

static int on_credit(struct session *s, const struct guest_frame *frame, struct err *err)
{
	struct guest_credit m;

	if (conduits_has(s->conduits, frame->stream))
		return on_stream(s, frame, err);
	int rc = guest_credit_decode(frame->payload, &m, err);
	for (size_t i = 0; rc == 0 && i < OUTPUTS; i++) {
		if (s->outputs[i].number == frame->stream)
			s->outputs[i].credit += m.bytes;
	}
	return rc;
}

static int on_ping(struct session *s, const struct guest_frame *frame, struct err *err)
{
	struct guest_ping m;

	int rc = guest_ping_decode(frame->payload, &m, err);
	if (rc < 0)
		return rc;
	if (m.wall_ns != 0 && s->done != 0 && s->job.pid == 0)
		s->opts->ops->set_clock(s->opts->ops->ctx, m.wall_ns);
	guest_pong_encode(m.token, &s->out);
	return 0;
}

static int on_shutdown(struct session *s, const struct guest_frame *frame, struct err *err)
{
	(void)frame;
	(void)err;
	s->over = true;
	return 0;
}

static int (*const handlers[])(struct session *, const struct guest_frame *, struct err *) = {
	[GUEST_HELLO] = on_hello,    [GUEST_JOB] = on_job,	     [GUEST_SIGNAL] = on_signal,
	[GUEST_CREDIT] = on_credit,  [GUEST_PING] = on_ping,	     [GUEST_SHUTDOWN] = on_shutdown,
	[GUEST_OPEN] = on_stream,    [GUEST_DATA] = on_stream,	     [GUEST_CLOSE] = on_stream,
	[GUEST_WINSIZE] = on_stream, [GUEST_REHEARSE] = on_rehearse,
};

static int take_frame(struct session *s, const struct guest_frame *frame, struct err *err)
{
	size_t type = (size_t)frame->type;

	if (type >= ARRAY_LEN(handlers) || handlers[type] == NULL)
		return err_set(err, ERR_UNSUPPORTED, "%s is not known here", guest_frame_name((int)type));
	return handlers[type](s, frame, err);
}

static void take_input(struct session *s, struct str input)
{
	struct guest_frame frame;
	struct err err = {0};

	for (;;) {
		int rc = guest_decode(&s->decoder, &input, &frame, &err);
		if (rc == 0)
			return;
		if (rc == GUEST_FRAME_READY)
			rc = take_frame(s, &frame, &err);
		else
			s->over = true;
		s->off_at_ns = 0; /* there is still a host */
		if (rc < 0)
			fault(s, &err);
		if (s->over)
			return;
	}
}

/* --- bytes --- */

/* A host that is not there (yet) reads as the end of the stream; poll() says whether it will not come back. False when
 * there is no more for now. */
static bool receive_some(struct session *s)
{
	static char bytes[GUEST_PAYLOAD_MAX];
	ssize_t got = read(s->opts->channel_fd, bytes, sizeof(bytes));

	if (got > 0)
		take_input(s, (struct str){bytes, (size_t)got});
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		s->over = true;
	return got > 0 && !s->over;
}

/* A port gives a page at a time, and a turn of the loop for each would cost more than the page. */
static void receive(struct session *s)
{
	for (int i = 0; i < READS_MAX && receive_some(s); i++)
		;
}

static void transmit(struct session *s)
{
	while (s->out.len > 0 && !s->rehearses) {
		ssize_t sent = write(s->opts->channel_fd, s->out.data, s->out.len);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN)
			s->over = true;
		if (sent <= 0)
			return;
		buf_consume(&s->out, (size_t)sent);
	}
}

static bool may_read(const struct session *s, const struct output *st)
{
	return st->fd >= 0 && st->credit > 0 && s->out.len < OUT_MAX;
}

static void pump(struct session *s, struct output *st)
{
	static char bytes[GUEST_OUTPUT_MAX];
	size_t want = st->credit < sizeof(bytes) ? (size_t)st->credit : sizeof(bytes);
	ssize_t got = read(st->fd, bytes, want);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		end_output(s, st);
		return;
	}
	struct guest_output m = {.seq = s->seq++, .bytes = {bytes, (size_t)got}};
	guest_output_encode(st->number, &m, &s->out);
	st->credit -= m.bytes.len;
}

/* --- the job's end --- */

static void on_other(void *ctx, pid_t pid, int status)
{
	struct session *s = ctx;

	conduits_reaped(s->conduits, pid, status);
}

static void on_children(struct session *s)
{
	struct signalfd_siginfo info;

	/* SIGCHLDs merge: each wake-up reaps all there is. */
	while (read(s->child_fd, &info, sizeof(info)) > 0)
		;
	job_reap(&s->job, on_other, s);
}

static void tell_exit(struct session *s)
{
	struct guest_usage usage;
	struct guest_exit m;

	job_usage(&s->job, &usage);
	job_exit(&s->job, &m);
	guest_usage_encode(&usage, &s->out);
	guest_exit_encode(&m, &s->out);
	s->told = true;
}

/* What is due by now: called on each turn of the loop. */
static void advance(struct session *s)
{
	int64_t now = now_ns();
	bool ended = s->job.pid != 0 && s->job.ended;

	if (s->kill_at_ns > 0 && now >= s->kill_at_ns) {
		s->opts->ops->signal_all(s->opts->ops->ctx, SIGKILL);
		s->kill_at_ns = 0;
	}
	/* What the first process leaves behind is not waited for. */
	if (ended && s->tell_at_ns == 0) {
		s->opts->ops->signal_all(s->opts->ops->ctx, SIGKILL);
		s->tell_at_ns = now + LAST_KILL_NS;
		s->kill_at_ns = 0; /* what the host starts from here on is its own */
		conduits_job_ended(s->conduits);
		job_reap(&s->job, on_other, s);
	}
	if (ended && !s->told && (s->job.all_gone || now >= s->tell_at_ns))
		tell_exit(s);
	if (s->rehearses && s->told && s->outputs[0].fd < 0 && s->outputs[1].fd < 0)
		end_rehearsal(s);
	s->conduits_at_ns = conduits_advance(s->conduits, now);
	if (s->off_at_ns > 0 && now >= s->off_at_ns)
		s->over = true;
}

/* Nothing is left to be said: the host has a while to end us. */
static void rest(struct session *s)
{
	bool silent = s->told && !s->rehearses && s->outputs[0].fd < 0 && s->outputs[1].fd < 0 && s->out.len == 0 &&
		      !conduits_busy(s->conduits);

	if (silent && s->off_at_ns == 0)
		s->off_at_ns = now_ns() + s->opts->linger_ns;
}

static int64_t earlier(int64_t a, int64_t b)
{
	if (a == 0 || (b > 0 && b < a))
		return b;
	return a;
}

static int timeout_ms(const struct session *s)
{
	int64_t next = earlier(earlier(s->kill_at_ns, s->off_at_ns), s->conduits_at_ns);

	if (!s->told)
		next = earlier(next, s->tell_at_ns);
	if (next == 0)
		return -1;
	int64_t left = (next - now_ns() + NS_PER_MS_INT - 1) / NS_PER_MS_INT;
	if (left < 0)
		left = 0;
	return left > INT_MAX ? INT_MAX : (int)left;
}

static void turn(struct session *s)
{
	struct pollfd fds[2 + OUTPUTS + CONDUITS_POLL_MAX] = {
		{.fd = s->opts->channel_fd,
		 .events = (short)(POLLIN | (s->out.len > 0 && !s->rehearses ? POLLOUT : 0))},
		{.fd = s->child_fd, .events = POLLIN},
	};

	for (size_t i = 0; i < OUTPUTS; i++)
		fds[2 + i] =
			(struct pollfd){.fd = may_read(s, &s->outputs[i]) ? s->outputs[i].fd : -1, .events = POLLIN};
	size_t n = conduits_poll(s->conduits, fds + 2 + OUTPUTS, s->out.len < OUT_MAX);
	if (poll(fds, 2 + OUTPUTS + n, timeout_ms(s)) < 0)
		return;
	/* The channel first: a signal or a ping goes before output. */
	if (fds[0].revents & POLLIN)
		receive(s);
	else if (fds[0].revents & (POLLHUP | POLLERR))
		s->over = true;
	if (fds[1].revents != 0)
		on_children(s);
	for (size_t i = 0; i < OUTPUTS; i++) {
		if (fds[2 + i].revents != 0 && s->outputs[i].fd >= 0)
			pump(s, &s->outputs[i]);
	}
	conduits_serve(s->conduits, fds + 2 + OUTPUTS, n, OUT_MAX);
	advance(s);
	transmit(s);
	rest(s);
}

void session_run(const struct session_opts *opts)
{
	static struct session session; /* the decoder holds a frame */
	struct session *s = &session;
	sigset_t children;

	*s = (struct session){.opts = opts, .ready_ns = now_ns(), .outputs = {{.fd = -1}, {.fd = -1}}};
	guest_decoder_for_guest(&s->decoder);
	(void)buf_reserve(&s->out, 2 * OUT_MAX); /* once: later, memory may be short */
	buf_append(&s->out, guest_beacon, sizeof(guest_beacon));
	s->conduits = conduits_init(&s->out, opts->cgroup_fd, opts->window_fd);
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	s->child_fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	while (!s->over)
		turn(s);
	transmit(s); /* a last fault, where the channel takes it */
	for (size_t i = 0; i < OUTPUTS; i++) {
		if (s->outputs[i].fd >= 0)
			(void)close(s->outputs[i].fd);
	}
	conduits_fini(s->conduits);
	(void)close(s->child_fd);
	buf_fini(&s->out);
}
