#include "shim/life.h"

#include <assert.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "shim/ending.h"
#include "shim/job.h"
#include "shim/job_log.h"
#include "shim/job_vm.h"
#include "shim/limits.h"
#include "shim/link.h"
#include "shim/outcome.h"
#include "shim/outside.h"
#include "shim/report.h"

enum life_state { LIFE_WAITING, LIFE_SPARE, LIFE_BOOTING, LIFE_BOOTED, LIFE_RUNNING, LIFE_ENDING, LIFE_EXITED };

static const char *const state_names[] = {"waiting", "spare", "booting", "booted", "running", "ending", "exited"};

/* Which states may follow which. */
#define TO(state) (1U << LIFE_##state)
static const unsigned moves[] = {
	[LIFE_WAITING] = TO(SPARE) | TO(BOOTING) | TO(EXITED), /* exited: another shim's job, only to be shipped */
	[LIFE_SPARE] = TO(BOOTING),
	[LIFE_BOOTING] = TO(BOOTED) | TO(ENDING),
	[LIFE_BOOTED] = TO(RUNNING) | TO(ENDING),
	[LIFE_RUNNING] = TO(ENDING),
	[LIFE_ENDING] = TO(EXITED),
};

struct life {
	struct life_opts opts;
	enum life_state state;
	struct link *link;	   /* to the agent */
	struct job_vm *vm;	   /* what a job runs in */
	struct outside *outside;   /* what it has besides */
	struct limits *limits;	   /* how long it may */
	struct report report;	   /* what the agent is told of it */
	struct ending ending;	   /* what is made of its end */
	struct shim_msg start_msg; /* all zeros before it came; its text lies in the arena */
	struct arena *arena;
	struct shim_msg go; /* all zeros: not there, or used */
	struct arena *go_arena;
	bool bringing;	 /* inputs are on their way, and the job waits for them */
	bool collecting; /* the job has ended, its outputs are on their way */
	bool vm_gone;	 /* or there never was one */
	bool stopped;
};

static struct shim_start *job_of(struct life *l)
{
	return &l->start_msg.start;
}

static void move(struct life *l, enum life_state to)
{
	assert((moves[l->state] >> to & 1) != 0);
	l->state = to;
	log_debug("job moved", F("job", job_of(l)->job_id), F("attempt", job_of(l)->attempt),
		  F("state", state_names[to]));
}

static void tell(struct life *l, const struct shim_msg *m)
{
	link_send(l->link, m);
}

/* --- the end of the shim --- */

static void stop(struct life *l)
{
	l->stopped = true;
	loop_stop(l->opts.loop);
}

/* Whether an agent is all that it waits for, and none is there. */
static bool is_forsaken(struct life *l)
{
	bool jobless = l->state == LIFE_WAITING || l->state == LIFE_SPARE;
	bool lease_lost = l->ending.facts.stop == STOP_LEASE && !l->report.acknowledged;

	return (jobless || (l->state == LIFE_EXITED && lease_lost)) && !link_has_agent(l->link);
}

static bool is_done(struct life *l)
{
	return l->state == LIFE_EXITED && l->report.acknowledged && outside_is_over(l->outside);
}

/* Whether there is nothing left to do, and then the end. */
static void maybe_stop(struct life *l)
{
	if (l->stopped || (!is_forsaken(l) && !is_done(l)))
		return;
	outside_remove_log(l->outside);
	tell(l, &(struct shim_msg){.type = SHIM_SHIPPED, .shipped = outside_shipping(l->outside)});
	stop(l);
}

/* --- the end of the job --- */

static void conclude(struct life *l)
{
	const struct shim_exited *e = &l->report.exited;

	if (l->state != LIFE_ENDING || !l->vm_gone || !ending_settle(&l->ending))
		return;
	move(l, LIFE_EXITED);
	log_info("job ended", F("job", job_of(l)->job_id), F("attempt", job_of(l)->attempt),
		 F("reason", shim_reason_name((enum shim_reason)e->reason)), F("lines", e->last_seq));
	ending_tell(&l->ending);
	maybe_stop(l);
}

/* All that decides the outcome stands in the facts. */
static void end(struct life *l)
{
	if (l->state == LIFE_ENDING || l->state == LIFE_EXITED)
		return;
	move(l, LIFE_ENDING);
	limits_job_ended(l->limits);
	outside_job_ended(l->outside);
	if (!job_vm_end(l->vm))
		l->vm_gone = true;
	conclude(l);
}

static void fail_start(struct life *l, const struct err *err)
{
	l->ending.facts.start_failed = *err;
	log_error("the VM could not be started", F("job", job_of(l)->job_id), F("error", err));
	end(l);
}

/* --- limits, cancel, lease --- */

/* Asks the job to end, and sees to it. The first cause stays the reason; a shorter grace counts. */
static void stop_job(struct life *l, enum stop_cause cause, int64_t grace_ns)
{
	if (l->state < LIFE_BOOTING || l->state >= LIFE_ENDING)
		return;
	/* It has ended by itself: only what it leaves is not waited for. */
	if (l->collecting) {
		end(l);
		return;
	}
	if (l->ending.facts.stop == STOP_NONE)
		l->ending.facts.stop = cause;
	if (!l->ending.facts.sent) {
		end(l);
		return;
	}
	channel_send_signal(job_vm_channel(l->vm), SIGTERM, grace_ns > 0 ? grace_ns : 1);
	limits_grace(l->limits, grace_ns);
}

/* The VM is destroyed, and of this attempt nothing more is sent, whatever was reached. */
static void lose_lease(struct life *l)
{
	if (l->state == LIFE_SPARE) {
		stop(l); /* nobody came */
		return;
	}
	if (l->report.acknowledged || l->state == LIFE_WAITING || l->ending.facts.stop == STOP_LEASE)
		return;
	log_warn("the lease is over: destroying the VM", F("job", job_of(l)->job_id), F("attempt", job_of(l)->attempt));
	l->ending.facts.stop = STOP_LEASE;
	outside_silence(l->outside);
	if (l->state == LIFE_EXITED) {
		ending_settle_lost(&l->ending);
		maybe_stop(l);
	} else if (l->state == LIFE_ENDING) {
		conclude(l);
	} else {
		end(l);
	}
}

static void on_lease_over(void *ctx)
{
	lose_lease(ctx);
}

static void on_time_up(void *ctx)
{
	struct life *l = ctx;

	stop_job(l, STOP_TIMEOUT, job_of(l)->grace_ns);
}

static void on_grace_over(void *ctx)
{
	end(ctx);
}

static const struct limits_ops limits_ops = {
	.lease_over = on_lease_over,
	.time_up = on_time_up,
	.grace_over = on_grace_over,
};

/* --- the job goes into its VM --- */

static int send_job(struct life *l, const struct shim_go *go, struct err *err)
{
	autofree struct guest_job *job = xcalloc(1, sizeof(*job));
	autovar(buf) text = {0};

	int rc = job_compose(job_of(l), go, outside_services(l->outside), job, &text, err);
	if (rc == 0)
		rc = channel_send_job(job_vm_channel(l->vm), job, err);
	if (text.data != NULL)
		secret_wipe(text.data, text.cap);
	return rc;
}

/* Once its inputs are there, its clock is right and the agent has said so. */
static void go_on(struct life *l)
{
	struct err err = {0};

	if (l->state != LIFE_BOOTED || l->ending.facts.sent || l->bringing || l->go_arena == NULL ||
	    !channel_clock_is_near(job_vm_channel(l->vm)))
		return;
	int rc = send_job(l, &l->go.go, &err);
	shim_msg_fini(&l->go);
	if (rc < 0) {
		fail_start(l, &err);
		return;
	}
	l->ending.facts.sent = true;
	outside_job_sent(l->outside, job_vm_channel(l->vm));
	l->ending.facts.timeout_ns = job_of(l)->timeout_ns;
	limits_job(l->limits, job_of(l)->timeout_ns);
}

/* --- what comes from outside --- */

static void on_room(void *ctx, bool has_room)
{
	struct life *l = ctx;
	struct channel *channel = job_vm_channel(l->vm);

	if (channel != NULL)
		channel_room(channel, has_room);
}

static void on_brought(void *ctx, const struct err *err)
{
	struct life *l = ctx;

	l->bringing = false;
	if (l->state != LIFE_BOOTED)
		return;
	if (err != NULL)
		fail_start(l, err);
	else
		go_on(l);
}

static void on_collected(void *ctx)
{
	end(ctx);
}

static void on_retry(void *ctx)
{
	struct life *l = ctx;

	if (l->state == LIFE_ENDING)
		conclude(l);
	else if (l->state != LIFE_EXITED)
		outside_flush(l->outside);
}

static void on_outside_over(void *ctx)
{
	maybe_stop(ctx);
}

static const struct outside_ops outside_ops = {
	.room = on_room,
	.brought = on_brought,
	.collected = on_collected,
	.retry = on_retry,
	.over = on_outside_over,
};

/* --- what comes from the VM --- */

static void on_spare_rests(void *ctx, int64_t memory_bytes)
{
	tell(ctx, &(struct shim_msg){.type = SHIM_READY, .ready = {.memory_bytes = memory_bytes}});
}

/* Nothing is lost with it but itself. */
static void on_spare_spoilt(void *ctx, const char *why)
{
	struct life *l = ctx;

	log_warn("a spare VM goes", F("template", job_of(l)->template), F("why", why));
	stop(l);
}

static void on_vm_up(void *ctx, const struct shim_booted *booted)
{
	struct life *l = ctx;

	l->ending.facts.answered = true;
	l->report.booted = *booted;
	move(l, LIFE_BOOTED);
	l->bringing = outside_has_inputs(l->outside);
	if (l->bringing)
		outside_bring(l->outside, job_vm_channel(l->vm), job_vm_window(l->vm));
	if (l->state == LIFE_BOOTED)
		report_booted(&l->report);
}

static void on_vm_failed(void *ctx, const struct err *err)
{
	fail_start(ctx, err);
}

static void on_guest_lost(void *ctx, const struct err *err)
{
	struct life *l = ctx;

	l->ending.facts.guest_lost = *err;
	end(l);
}

static void on_vm_cut_off(void *ctx, const struct err *err)
{
	struct life *l = ctx;

	log_warn("a job has lost its network", F("job", job_of(l)->job_id), F("error", err));
	if (l->ending.facts.sent)
		outside_note(l->outside, err->msg);
	else
		fail_start(l, err);
}

static void on_vm_gone(void *ctx, const struct process_exit *exit, const struct shim_usage *usage)
{
	struct life *l = ctx;
	struct channel *channel = job_vm_channel(l->vm);

	l->vm_gone = true;
	l->report.exited.usage = *usage;
	/* Else by itself; but what its guest said before may be the job's end. */
	l->ending.facts.vm_ended = l->state != LIFE_ENDING;
	l->ending.facts.vmm = *exit;
	if (channel != NULL)
		channel_close(channel);
	end(l);
	conclude(l);
}

static void on_timely(void *ctx)
{
	go_on(ctx);
}

static void on_started(void *ctx)
{
	struct life *l = ctx;

	if (l->state != LIFE_BOOTED)
		return;
	l->report.running = (struct shim_running){.started_ns = clock_monotonic_ns(), .started_at = clock_unix_ns()};
	move(l, LIFE_RUNNING);
	report_running(&l->report);
	outside_job_started(l->outside, &(struct session_started){.queued_ns = job_of(l)->queued_ns,
								  .vm_ns = ending_vm_ns(&l->ending)});
}

static void on_finished(void *ctx, const struct guest_exit *exit)
{
	struct life *l = ctx;

	l->ending.facts.exited = true;
	l->ending.facts.exit = *exit;
	l->ending.exited_ns = clock_monotonic_ns();
	l->collecting =
		l->state == LIFE_RUNNING && l->ending.facts.stop == STOP_NONE && outside_has_outputs(l->outside);
	if (!l->collecting) {
		end(l);
		return;
	}
	limits_job_ended(l->limits);
	outside_flush(l->outside);
	outside_collect(l->outside, job_vm_channel(l->vm), job_vm_window(l->vm));
}

static const struct job_vm_ops vm_ops = {
	.rests = on_spare_rests,
	.spoilt = on_spare_spoilt,
	.up = on_vm_up,
	.failed = on_vm_failed,
	.lost = on_guest_lost,
	.cut_off = on_vm_cut_off,
	.gone = on_vm_gone,
	.timely = on_timely,
	.started = on_started,
	.finished = on_finished,
};

/* --- what the agent says --- */

/* Takes the message and its memory. */
static void keep_start(struct life *l, struct shim_msg *m, struct arena **arena)
{
	arena_free(l->arena);
	l->start_msg = *m;
	*m = (struct shim_msg){0};
	l->arena = TAKE(*arena);
}

/* A machine, and no job. */
static void on_spare(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	const struct shim_spare *s = &m->spare;
	struct err err = {0};

	if (l->state != LIFE_WAITING || fds->count <= SHIM_START_FD_STATE) {
		log_warn("an order of a spare VM was ignored");
		return;
	}
	struct shim_msg machine = {.type = SHIM_START,
				   .start = {.vcpus = s->vcpus,
					     .memory_mb = s->memory_mb,
					     .accel = s->accel,
					     .tsc_khz = s->tsc_khz,
					     .vmm = s->vmm,
					     .template = s->template,
					     .deadline_ns = s->until_ns}};
	keep_start(l, &machine, arena);
	move(l, LIFE_SPARE);
	limits_lease(l->limits, job_of(l)->deadline_ns);
	if (job_vm_start_spare(l->vm, fds, &err) < 0)
		on_spare_spoilt(l, err.msg);
}

static int start_job(struct life *l, bool spare, struct msg_fds *fds, struct err *err)
{
	int rc = outside_open(l->outside, err);

	if (rc < 0)
		return rc;
	if (!spare)
		return job_vm_start(l->vm, fds, err);
	return job_of(l)->network != SHIM_NETWORK_NONE ? err_set(err, ERR_UNSUPPORTED, "a spare VM has no network") : 0;
}

static void on_start(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	bool spare = l->state == LIFE_SPARE;
	struct err err = {0};

	if (l->state != LIFE_WAITING && !spare) {
		log_warn("a second start was ignored", F("job", job_of(l)->job_id));
		return;
	}
	keep_start(l, m, arena);
	move(l, LIFE_BOOTING);
	l->ending.start_ns = clock_monotonic_ns();
	limits_lease(l->limits, job_of(l)->deadline_ns);
	if (spare)
		job_vm_wake(l->vm, l->ending.start_ns); /* what follows is done while the guest is at it */
	if (l->state == LIFE_BOOTING && start_job(l, spare, fds, &err) < 0)
		fail_start(l, &err);
}

/* The job is over and acknowledged; another shim was to ship its log, and is no more. */
static void on_resume(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	autovar(shim_msg) start = {0};
	struct err err = {0};

	(void)fds;
	(void)m;
	if (l->state != LIFE_WAITING)
		return;
	int rc = job_log_read_order(l->opts.dir_fd, *arena, &start, &err);
	if (rc == 0) {
		keep_start(l, &start, arena);
		rc = outside_open_log(l->outside, &err);
	}
	if (rc < 0) {
		log_error("the log that another shim left cannot be shipped", F("error", &err));
		stop(l);
		return;
	}
	l->report.acknowledged = true;
	move(l, LIFE_EXITED);
	outside_flush(l->outside);
	maybe_stop(l);
}

static void on_go(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	(void)fds;
	if (l->state != LIFE_BOOTED || l->ending.facts.sent || l->go_arena != NULL)
		return;
	outside_mask(l->outside, &m->go);
	l->go = *m;
	*m = (struct shim_msg){0};
	l->go_arena = TAKE(*arena);
	go_on(l);
}

static void on_session(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	(void)arena;
	(void)fds;
	if (l->state != LIFE_WAITING && l->state != LIFE_EXITED)
		outside_exec(l->outside, &m->session);
}

static void on_new_deadline(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	(void)arena;
	(void)fds;
	if (m->deadline.log_url != NULL)
		outside_redirect(l->outside, m->deadline.log_url);
	if (ending_count_services(&l->ending) && m->deadline.counts != 0)
		tell(l, &(struct shim_msg){.type = SHIM_SERVED, .served = l->report.exited.served});
	if (l->state < LIFE_BOOTING || l->report.acknowledged || l->ending.facts.stop == STOP_LEASE)
		return;
	job_of(l)->deadline_ns = m->deadline.deadline_ns;
	limits_lease(l->limits, m->deadline.deadline_ns);
}

static void on_cancel(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	int64_t grace_ns = m->cancel.grace_ns >= 0 ? m->cancel.grace_ns : job_of(l)->grace_ns;

	(void)arena;
	(void)fds;
	stop_job(l, STOP_CANCEL, grace_ns);
}

static void on_destroy(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	(void)m;
	(void)arena;
	(void)fds;
	if (l->state < LIFE_BOOTING)
		stop(l);
	else
		lose_lease(l);
}

static void on_exit_ack(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	(void)m;
	(void)arena;
	(void)fds;
	if (l->state != LIFE_EXITED)
		return;
	l->report.acknowledged = true;
	limits_lease(l->limits, LOOP_NEVER);
	maybe_stop(l);
}

static const struct {
	enum shim_msg_type type;
	void (*handle)(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds);
} handlers[] = {
	{SHIM_START, on_start},	  {SHIM_GO, on_go},	      {SHIM_DEADLINE, on_new_deadline},
	{SHIM_CANCEL, on_cancel}, {SHIM_DESTROY, on_destroy}, {SHIM_EXIT_ACK, on_exit_ack},
	{SHIM_RESUME, on_resume}, {SHIM_SESSION, on_session}, {SHIM_SPARE, on_spare},
};

static void on_message(void *ctx, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	for (size_t i = 0; i < ARRAY_LEN(handlers); i++) {
		if (handlers[i].type == m->type) {
			handlers[i].handle(ctx, m, arena, fds);
			return;
		}
	}
	log_warn("a message that only shims send was ignored");
}

static void on_agent_connected(void *ctx)
{
	struct life *l = ctx;

	report_all(&l->report);
}

/* The job goes on: until its lease ends, another agent may come. */
static void on_agent_gone(void *ctx)
{
	maybe_stop(ctx);
}

static const struct link_ops link_ops = {
	.connected = on_agent_connected,
	.message = on_message,
	.gone = on_agent_gone,
};

/* --- making and freeing --- */

static int make_parts(struct life *l, struct err *err)
{
	l->outside = outside_new(&(struct outside_opts){
		.loop = l->opts.loop, .dir_fd = l->opts.dir_fd, .start = &l->start_msg, .ops = &outside_ops, .ctx = l});
	const struct job_vm_opts vm = {.loop = l->opts.loop,
				       .driver = l->opts.driver,
				       .dir_fd = l->opts.dir_fd,
				       .job = job_of(l),
				       .outside = l->outside,
				       .hello_timeout_ns = l->opts.hello_timeout_ns,
				       .ops = &vm_ops,
				       .ctx = l};
	int rc = job_vm_new(&vm, &l->vm, err);
	if (rc == 0)
		rc = limits_new(l->opts.loop, &limits_ops, l, &l->limits, err);
	if (rc < 0)
		return rc;
	l->ending.report = &l->report;
	l->ending.outside = l->outside;
	l->ending.vm = l->vm;
	return 0;
}

int life_new(const struct life_opts *opts, struct life **ret, struct err *err)
{
	autoclose agent_fd = opts->agent_fd;
	autoptr(life) l = xcalloc(1, sizeof(*l));

	l->opts = *opts;
	int rc = make_parts(l, err);
	if (rc < 0)
		return rc;
	const struct link_opts link_opts = {
		.loop = opts->loop, .dir_fd = opts->dir_fd, .agent_fd = fd_take(&agent_fd), .ops = &link_ops, .ctx = l};
	rc = link_new(&link_opts, &l->link, err);
	if (rc < 0)
		return rc;
	l->report.link = l->link;
	l->report.job = job_of(l);
	*ret = TAKE(l);
	return 0;
}

void life_free(struct life *l)
{
	if (l == NULL)
		return;
	outside_free(l->outside);
	job_vm_free(l->vm);
	limits_free(l->limits);
	link_free(l->link);
	shim_msg_fini(&l->go);
	arena_free(l->go_arena);
	shim_msg_fini(&l->start_msg);
	arena_free(l->arena);
	fd_close(&l->opts.dir_fd);
	free(l);
}
