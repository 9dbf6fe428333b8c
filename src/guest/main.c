/*
 * nimbus-guest: PID 1 of a microVM. Boots the machine under one job, then speaks with the host until it is over.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "guest/rehearsal.h"
#include "guest/session.h"
#include "guest/system.h"
#include "guest/tick.h"

enum { LINGER_S = 5 };

static int64_t uptime_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* A machine whose timer ticks many times too fast runs wrong and hot all its life, and one without hardly runs: it ends
 * here, and the host starts another. */
static int check_tick(struct tick_sample begin, struct err *err)
{
	int64_t rate = tick_rate(begin, tick_sample());

	if (rate == 1)
		return 0;
	return err_set(err, ERR_UNAVAILABLE,
		       "the kernel measured its timer wrong, on a busy host: it ticks %lld times as often as it should",
		       (long long)rate);
}

static uint32_t hello(void *ctx, const struct guest_hello *message)
{
	(void)ctx;
	return system_hello(message);
}

static int rehearse(void *ctx)
{
	const struct session_opts *opts = ctx;

	int cgroup_fd = system_rehearse();
	rehearse_archives("/.nimbus-rehearsal", opts->window_fd);
	return cgroup_fd;
}

static void rehearsed(void *ctx)
{
	(void)ctx;
	system_rehearsed();
}

static void set_clock(void *ctx, int64_t wall_ns)
{
	(void)ctx;
	(void)system_set_clock(wall_ns);
}

/* For PID 1 that is everything else that runs in the machine, at one instant: no fork escapes it. */
static void signal_all(void *ctx, int signal)
{
	(void)ctx;
	(void)kill(-1, signal);
}

/* Whatever the job does to memory and CPUs, we run. The job's first process starts without these. */
static void be_first(void)
{
	const struct sched_param priority = {.sched_priority = 1};

	(void)mlockall(MCL_CURRENT | MCL_FUTURE);
	(void)sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &priority);
}

static void take_signals(void)
{
	sigset_t children;

	(void)signal(SIGPIPE, SIG_IGN);
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &children, NULL);
}

int main(void)
{
	static struct session_ops ops = {.hello = hello,
					 .set_clock = set_clock,
					 .rehearse = rehearse,
					 .rehearsed = rehearsed,
					 .signal_all = signal_all};
	struct session_opts opts = {.init_ns = uptime_ns(), .linger_ns = LINGER_S * NS_PER_S, .ops = &ops};
	struct err err = {0};

	if (getpid() != 1) {
		(void)fprintf(stderr, "nimbus-guest: this is the init of a microVM and runs nowhere else\n");
		return 2;
	}
	ops.ctx = &opts;
	take_signals();
	be_first();
	struct tick_sample begin = tick_sample();
	int rc = system_boot(&err);
	if (rc == 0)
		rc = check_tick(begin, &err);
	opts.cgroup_fd = system_cgroup();
	opts.window_fd = system_window();
	if (rc == 0)
		rc = system_channel(&opts.channel_fd, &err);
	if (rc == 0)
		session_run(&opts);
	else
		(void)fprintf(stderr, "nimbus-guest: %s\n", err.msg);
	system_power_off();
}
