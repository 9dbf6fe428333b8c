#include "up/child.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "net/loop.h"
#include "up/patience.h"

#define PROBE_PAUSE_NS (10 * NS_PER_MS)
#define PROBE_TIMEOUT_NS (2 * NS_PER_S)
#define SAY_AGAIN_NS (10 * NS_PER_S)
#define RESTART_BASE_NS (100 * NS_PER_MS)
#define RESTART_MAX_NS (10 * NS_PER_S)
/* One that stood for so long before it fell is started again at once. */
#define STEADY_NS (10 * NS_PER_S)
/* After the second SIGTERM, which asks for haste: an agent ends its VMs and gives leases back meanwhile. */
#define PRESSED_STOP_NS (15 * NS_PER_S)

enum child_state {
	CHILD_NEW,
	CHILD_PROBED,	/* has a process that is not known to be ready */
	CHILD_SERVING,	/* ready */
	CHILD_RESTING,	/* no process; the timer starts it again */
	CHILD_LEAVING,	/* was told to go for another; the timer kills it */
	CHILD_STOPPING, /* has its SIGTERM; the timer presses, then kills */
	CHILD_OVER,
};

struct child {
	struct child_opts opts;
	char *probe_url;
	enum child_state state;
	struct process process;
	struct loop_source *watch; /* of its pidfd */
	struct loop_source *timer; /* of what the state says */
	struct loop_source *hearing;
	int sign_fd; /* where its signs of life come from; or -1 */
	struct patience patience;
	bool late;	  /* has been told to be */
	bool hung;	  /* was ended for that */
	char answer[200]; /* of its /readyz, where that was no */
	struct http_pending *probe;
	unsigned failures;
	bool refused;
	char end[32]; /* how it fell last */
	bool pressed; /* has had its second SIGTERM */
	int64_t started_ns;
	int64_t asked_ns; /* whether it is ready */
	int64_t said_ns;  /* that it is not */
};

static void on_end(void *ctx, unsigned events);
static void on_timer(void *ctx);

struct child *child_new(const struct child_opts *opts)
{
	struct child *c = xcalloc(1, sizeof(*c));

	c->opts = *opts;
	c->probe_url = http_url(opts->url, "/readyz");
	c->process.pidfd = -1;
	c->sign_fd = -1;
	return c;
}

/* --- its signs of life --- */

static void stop_hearing(struct child *c)
{
	loop_source_free(TAKE(c->hearing));
	fd_close(&c->sign_fd);
}

static void on_sign(void *ctx, unsigned events)
{
	struct child *c = ctx;
	char bytes[1024];
	ssize_t len = read(c->sign_fd, bytes, sizeof(bytes));
	int64_t now_ns = clock_monotonic_ns();

	(void)events;
	if (len < 0)
		return;
	if (len == 0) { /* it has closed it: it will say no more */
		stop_hearing(c);
		return;
	}
	patience_hear(&c->patience, (struct str){bytes, (size_t)len}, now_ns);
	c->late = c->late && patience_ended(&c->patience, now_ns);
}

/* ret_fd is the role's end. */
static int hear(struct child *c, int *ret_fd, struct err *err)
{
	int fds[2];

	stop_hearing(c);
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
		return err_sys(err, "make a pipe");
	c->sign_fd = fds[0];
	*ret_fd = fds[1];
	return loop_add_fd(c->opts.loop, c->sign_fd, LOOP_READ, LOOP_NORMAL, on_sign, c, &c->hearing, err);
}

/* --- starting --- */

void child_free(struct child *c)
{
	struct process_exit end;

	if (c == NULL)
		return;
	http_pending_cancel(c->probe);
	loop_source_free(c->timer);
	loop_source_free(c->watch);
	stop_hearing(c);
	if (c->process.pidfd >= 0) {
		(void)!process_signal(&c->process, SIGKILL, NULL);
		(void)!process_wait(&c->process, INT64_MAX, &end, NULL);
	}
	free(c->probe_url);
	free(c);
}

static int arm(struct child *c, int64_t after_ns, struct err *err)
{
	int64_t deadline_ns = after_ns != LOOP_NEVER ? clock_monotonic_ns() + after_ns : LOOP_NEVER;

	if (c->timer == NULL)
		return loop_add_timer(c->opts.loop, deadline_ns, LOOP_NORMAL, on_timer, c, &c->timer, err);
	loop_timer_set(c->timer, deadline_ns);
	return 0;
}

/* For where the timer is there already, so that nothing can fail. */
static void rearm(struct child *c, int64_t after_ns)
{
	assert(c->timer != NULL);
	(void)!arm(c, after_ns, NULL);
}

int child_start(struct child *c, struct err *err)
{
	struct process_fd fds[3 + LISTEN_INHERITED_MAX] = {{STDERR_FILENO, STDOUT_FILENO},
							   {STDERR_FILENO, STDERR_FILENO}};
	autoclose sign_fd = -1;
	struct process_spec spec = {
		.exec_fd = c->opts.exec_fd,
		.argv = c->opts.argv,
		.envp = c->opts.envp,
		.fds = fds,
		.fd_count = 3 + c->opts.sockets->count,
		/* Where `up` itself is killed, all go at once: each survives that, and what a next start needs (ports,
		 * locks, the shims of running jobs) is free for it. */
		.parent_death_signal = SIGKILL,
		.new_session = true, /* Ctrl-C is for `up` alone, which stops the others in order */
		.no_core = true,     /* secrets are in there */
	};

	for (size_t i = 0; i < c->opts.sockets->count; i++)
		fds[2 + i] = (struct process_fd){c->opts.sockets->items[i]->fd, LISTEN_INHERITED_FIRST + (int)i};
	service_user_apply(c->opts.user, &spec);
	int rc = hear(c, &sign_fd, err);
	fds[2 + c->opts.sockets->count] = (struct process_fd){sign_fd, role_sockets_sign_fd(c->opts.sockets)};
	if (rc == 0)
		rc = arm(c, PROBE_PAUSE_NS, err);
	if (rc == 0)
		rc = process_spawn(&spec, &c->process, err);
	if (rc == 0)
		rc = loop_add_fd(c->opts.loop, c->process.pidfd, LOOP_READ, LOOP_URGENT, on_end, c, &c->watch, err);
	if (rc < 0)
		return rc;
	c->state = CHILD_PROBED;
	c->started_ns = clock_monotonic_ns();
	c->said_ns = c->started_ns;
	c->late = c->hung = false;
	c->answer[0] = '\0';
	patience_begin(&c->patience, c->opts.patience_ns, c->started_ns);
	return 0;
}

int child_adopt(struct child *c, pid_t pid, struct err *err)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		return err_sys(err, "take over %s (process %d)", c->opts.name, (int)pid);
	c->process = (struct process){.pid = pid, .pidfd = fd};
	int rc = arm(c, LOOP_NEVER, err);
	if (rc == 0)
		rc = loop_add_fd(c->opts.loop, fd, LOOP_READ, LOOP_URGENT, on_end, c, &c->watch, err);
	c->state = CHILD_SERVING;
	return rc;
}

/* --- is it ready? --- */

/* It has not answered, or that it is not. Where its patience had ended before it was asked it is late: so that it was
 * `up` that stood still is no reason. */
static void not_ready(struct child *c)
{
	int64_t now_ns = clock_monotonic_ns();
	bool ended = patience_ended(&c->patience, c->asked_ns) && patience_ended(&c->patience, now_ns);

	if (now_ns - c->said_ns >= SAY_AGAIN_NS) {
		c->said_ns = now_ns;
		log_info("is not ready yet", F("child", c->opts.name), F("answer", c->answer),
			 F("says", c->patience.words));
	}
	rearm(c, PROBE_PAUSE_NS);
	if (c->late || !ended)
		return;
	c->late = true;
	c->opts.on_event(c->opts.ctx, c, CHILD_LATE);
}

static void on_probe(void *ctx, struct http_reply *reply, const struct err *err)
{
	struct child *c = ctx;

	(void)reply;
	c->probe = NULL;
	if (c->state != CHILD_PROBED)
		return;
	if (err != NULL) {
		(void)snprintf(c->answer, sizeof(c->answer), "%s", err->msg);
		not_ready(c);
		return;
	}
	c->state = CHILD_SERVING;
	stop_hearing(c);
	c->failures = 0;
	c->opts.on_event(c->opts.ctx, c, CHILD_READY);
}

static void probe(struct child *c)
{
	const struct http_call call = {.url = c->probe_url, .timeout_ns = PROBE_TIMEOUT_NS};
	struct err err = {0};

	c->asked_ns = clock_monotonic_ns();
	if (http_client_start(c->opts.client, &call, on_probe, c, &c->probe, &err) < 0)
		rearm(c, PROBE_PAUSE_NS);
}

/* --- falls and starts --- */

static int64_t pause_before_restart(const struct child *c)
{
	int64_t pause = RESTART_BASE_NS;

	for (unsigned i = 1; i < c->failures && pause < RESTART_MAX_NS; i++)
		pause *= 2;
	return pause < RESTART_MAX_NS ? pause : RESTART_MAX_NS;
}

static void start_again(struct child *c)
{
	struct err err = {0};

	log_info("starting again", F("child", c->opts.name));
	if (child_start(c, &err) == 0)
		return;
	log_error("cannot start", F("child", c->opts.name), F("error", &err));
	c->failures++;
	c->state = CHILD_RESTING;
	rearm(c, pause_before_restart(c));
}

static void on_timer(void *ctx)
{
	struct child *c = ctx;

	if (c->state == CHILD_PROBED) {
		probe(c);
	} else if (c->state == CHILD_RESTING) {
		start_again(c);
	} else if (c->state == CHILD_STOPPING && !c->pressed) {
		child_stop(c);
	} else if (c->state == CHILD_STOPPING || c->state == CHILD_LEAVING) {
		log_warn("did not stop in time: killed", F("child", c->opts.name));
		(void)!process_signal(&c->process, SIGKILL, NULL);
	}
}

static void on_end(void *ctx, unsigned events)
{
	struct child *c = ctx;
	struct process_exit end = {0};
	struct err err = {0};

	(void)events;
	loop_source_free(TAKE(c->watch));
	http_pending_cancel(TAKE(c->probe));
	stop_hearing(c);
	if (process_wait(&c->process, INT64_MAX, &end, &err) < 0)
		log_error("cannot tell how it ended", F("child", c->opts.name), F("error", &err));
	fd_close(&c->process.pidfd);
	if (c->state == CHILD_STOPPING) {
		c->state = CHILD_OVER;
		c->opts.on_event(c->opts.ctx, c, CHILD_GONE);
		return;
	}
	if (c->state == CHILD_LEAVING) {
		start_again(c);
		return;
	}
	if (!c->hung)
		log_warn("ended unexpectedly", F("child", c->opts.name), F("pid", c->process.pid),
			 F(end.exited ? "exit_code" : "signal", end.exited ? end.code : end.signal));
	(void)snprintf(c->end, sizeof(c->end), "%s %d", end.exited ? "exit status" : "signal",
		       end.exited ? end.code : end.signal);
	c->refused = end.exited && end.code == err_info(ERR_INVALID)->exit_status;
	bool steady = clock_monotonic_ns() - c->started_ns >= STEADY_NS;
	c->failures = steady ? 1 : c->failures + 1;
	c->state = CHILD_RESTING;
	rearm(c, pause_before_restart(c));
	c->opts.on_event(c->opts.ctx, c, CHILD_FELL);
}

void child_stop(struct child *c)
{
	if (c->state == CHILD_OVER)
		return;
	if (c->process.pidfd < 0) {
		if (c->timer != NULL)
			loop_timer_set(c->timer, LOOP_NEVER);
		c->state = CHILD_OVER;
		c->opts.on_event(c->opts.ctx, c, CHILD_GONE);
		return;
	}
	c->pressed = c->state == CHILD_STOPPING;
	c->state = CHILD_STOPPING;
	(void)!process_signal(&c->process, SIGTERM, NULL);
	rearm(c, c->pressed ? PRESSED_STOP_NS : c->opts.stop_ns);
}

void child_end_hung(struct child *c)
{
	assert(c->state == CHILD_PROBED);
	c->hung = true;
	http_pending_cancel(TAKE(c->probe));
	rearm(c, LOOP_NEVER);
	log_warn("hangs: killed", F("child", c->opts.name), F("pid", c->process.pid));
	(void)!process_signal(&c->process, SIGKILL, NULL);
}

void child_replace(struct child *c, int signal)
{
	if (c->state == CHILD_STOPPING || c->state == CHILD_OVER)
		return;
	if (c->process.pidfd < 0) {
		start_again(c);
		return;
	}
	http_pending_cancel(TAKE(c->probe));
	c->state = CHILD_LEAVING;
	(void)!process_signal(&c->process, signal, NULL);
	rearm(c, c->opts.stop_ns);
}

pid_t child_pid(const struct child *c)
{
	return c->process.pidfd >= 0 ? c->process.pid : 0;
}

void child_reload(const struct child *c)
{
	if (c->state == CHILD_SERVING)
		(void)!process_signal(&c->process, SIGHUP, NULL);
}

bool child_is_ready(const struct child *c)
{
	return c->state == CHILD_SERVING;
}

bool child_is_gone(const struct child *c)
{
	return c->state == CHILD_OVER || c->state == CHILD_NEW;
}

bool child_is_late(const struct child *c)
{
	return c->state == CHILD_PROBED && c->late;
}

const char *child_answer(const struct child *c)
{
	return c->answer;
}

const char *child_words(const struct child *c)
{
	return c->patience.words;
}

const char *child_name(const struct child *c)
{
	return c->opts.name;
}

unsigned child_failures(const struct child *c)
{
	return c->failures;
}

const char *child_end(const struct child *c)
{
	return c->end;
}

bool child_refused(const struct child *c)
{
	return c->refused;
}
