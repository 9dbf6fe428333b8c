#include "shim/life.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "shim/channel.h"
#include "shim/job.h"
#include "shim/job_log.h"
#include "shim/link.h"
#include "shim/machine.h"
#include "shim/network.h"
#include "shim/outcome.h"
#include "shim/services.h"
#include "shim/talk.h"
#include "shim/workspace.h"
#include "vm/handshake.h"

/* A VM that has not answered by then is given up and boots once more: many times what a boot and a clone take on a
 * machine with CPUs to spare. On one without, as many times longer, but not above the most. */
#define BOOT_TIMEOUT_NS (20 * NS_PER_S)
#define CLONE_TIMEOUT_NS (5 * NS_PER_S)
#define HELLO_TIMEOUT_MOST_NS (60 * NS_PER_S)
/* A guest of an older build does not say that it listens. */
#define LISTEN_NS (5 * NS_PER_S)
/* The guest kills what is left at the end of the grace and tells the exit; a guest that does not is killed itself. */
#define KILL_MARGIN_NS NS_PER_S

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
	struct link *link;
	struct loop_source *deadline_timer;
	struct loop_source *hello_timer;
	struct loop_source *again_timer; /* the VM boots, where the one before was given up */
	struct loop_source *limit_timer; /* the job's time limit */
	struct loop_source *kill_timer;	 /* the end of a grace */

	struct shim_msg start_msg; /* all zeros before it came; its text lies in the arena */
	struct arena *arena;
	struct job_log *log;	   /* NULL before the start */
	struct services *services; /* NULL: not yet, or not any more */
	struct network *network;   /* NULL: the VM has none */
	struct msg_fds start_fds;  /* until the guest has answered */
	struct machine *machine;
	int64_t ready_ns; /* it is a spare that waits, since then; 0: not yet */
	struct channel *channel;
	struct http_client *client;  /* to the control plane; NULL: it is not spoken to */
	struct talk *talk;	     /* NULL: there is no client */
	struct workspace *workspace; /* NULL: there is no client */
	bool bringing;		     /* inputs are on their way, and the job waits for them */
	bool collecting;	     /* the job has ended, its outputs are on their way */
	struct shim_msg go;	     /* all zeros: not there, or used */
	struct arena *go_arena;
	bool log_room;
	bool talk_room;

	struct outcome_facts facts;
	bool vm_gone;
	bool is_clone;			     /* the VM that runs, or was to */
	char clone_error[OUTCOME_TEXT_SIZE]; /* why it boots instead; "": it does not */
	bool again;			     /* given up: when it is gone, it boots */
	bool stalled;			     /* told in the log */
	int64_t start_ns;		     /* the agent's decision came */
	int64_t launched_ns;
	struct shim_booted booted;
	struct shim_running running;
	struct shim_exited exited;
	char message[OUTCOME_TEXT_SIZE];
	int64_t exited_ns;  /* the job's process */
	int64_t kill_at_ns; /* 0: no grace is running */
	bool acknowledged;
	bool stopped;
};

static const struct shim_start *job_of(const struct life *l)
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

/* --- what the agent is told --- */

static void tell(struct life *l, const struct shim_msg *m)
{
	link_send(l->link, m);
}

static void tell_hello(struct life *l)
{
	const struct shim_start *job = job_of(l);

	tell(l, &(struct shim_msg){.type = SHIM_HELLO,
				   .hello = {.pid = getpid(),
					     .job_id = job->job_id,
					     .attempt = job->attempt,
					     .fence = job->fence,
					     .vcpus = job->vcpus,
					     .memory_mb = job->memory_mb,
					     .deadline_ns = job->deadline_ns}});
}

static void tell_booted(struct life *l)
{
	if (l->booted.guest_answered_ns != 0)
		tell(l, &(struct shim_msg){.type = SHIM_BOOTED, .booted = l->booted});
}

static void tell_running(struct life *l)
{
	if (l->running.started_ns != 0)
		tell(l, &(struct shim_msg){.type = SHIM_RUNNING, .running = l->running});
}

static void tell_exited(struct life *l)
{
	if (l->state == LIFE_EXITED && !l->acknowledged)
		tell(l, &(struct shim_msg){.type = SHIM_EXITED, .exited = l->exited});
}

/* --- the end of the shim --- */

static void stop(struct life *l)
{
	l->stopped = true;
	loop_stop(l->opts.loop);
}

static struct shim_shipping counts(const struct life *l)
{
	return l->log != NULL ? job_log_counts(l->log) : (struct shim_shipping){0};
}

/* Whether there is nothing left to do, and then the end. */
static void maybe_stop(struct life *l)
{
	bool lease_lost = l->facts.stop == STOP_LEASE;

	bool jobless = l->state == LIFE_WAITING || l->state == LIFE_SPARE;

	if (l->stopped || (l->state != LIFE_EXITED && !jobless))
		return;
	if (jobless || (lease_lost && !l->acknowledged)) {
		if (link_has_agent(l->link))
			return;
	} else if (!l->acknowledged || (l->log != NULL && !job_log_is_shipped(l->log)) ||
		   (l->talk != NULL && !talk_is_over(l->talk))) {
		return;
	}
	if (l->log != NULL)
		job_log_remove(l->log);
	tell(l, &(struct shim_msg){.type = SHIM_SHIPPED, .shipped = counts(l)});
	stop(l);
}

/* --- the end of the job --- */

/* What is reported is on disk first: last_seq is a promise. */
static bool log_is_durable(struct life *l)
{
	return l->log == NULL || l->facts.stop == STOP_LEASE || job_log_durable(l->log);
}

/* Whoever reads the log sees why it ends, where the job itself did not say. */
static void close_log(struct life *l)
{
	bool clear = l->exited.reason == SHIM_REASON_EXIT || l->exited.reason == SHIM_REASON_LEASE_LOST;

	if (l->log != NULL)
		job_log_close(l->log, clear ? NULL : l->message);
}

/* Nobody is there to be served; what is written down for another shim is without this token. */
static void count_services(struct life *l)
{
	if (l->services == NULL)
		return;
	services_counts(l->services, &l->exited.served);
	if (l->channel != NULL)
		l->exited.served.refused[SHIM_REFUSAL_STREAMS] = (int64_t)streams_refused(channel_streams(l->channel));
}

static void drop_services(struct life *l)
{
	count_services(l);
	for (size_t i = 0; i < SHIM_SERVICE_COUNT; i++)
		l->exited.served.each[i].streams = 0;
	services_free(TAKE(l->services));
	secret_free(TAKE(l->start_msg.start.services_token));
}

/* What the job's client hears last. */
static void tell_client(struct life *l)
{
	const struct shim_exited *e = &l->exited;
	int64_t now_ns = clock_monotonic_ns();
	bool ran = l->running.started_ns != 0;
	int64_t ended_ns = l->exited_ns != 0 ? l->exited_ns : now_ns;
	bool clear = e->reason == SHIM_REASON_EXIT;

	if (l->talk == NULL)
		return;
	talk_exit(l->talk,
		  &(struct session_exit){
			  .code = (int32_t)e->exit_code,
			  .signal = (uint32_t)e->signal,
			  .queued_ns = job_of(l)->queued_ns,
			  .vm_ns = l->booted.guest_answered_ns != 0 ? l->booted.guest_answered_ns - l->start_ns : -1,
			  .ran_ns = ran ? ended_ns - l->running.started_ns : -1,
			  .gone_ns = l->exited_ns != 0 ? now_ns - ended_ns : -1,
			  .reason = shim_reason_name((enum shim_reason)e->reason),
			  .text = clear ? "" : l->message,
		  });
}

static void conclude(struct life *l)
{
	if (l->state != LIFE_ENDING || !l->vm_gone)
		return;
	drop_services(l);
	if (l->facts.last_words == NULL)
		l->facts.last_words = l->machine != NULL ? machine_last_words(l->machine) : "";
	outcome_of(&l->facts, l->message, &l->exited);
	close_log(l);
	if (!log_is_durable(l))
		return;
	l->exited.last_seq = l->log != NULL ? job_log_last_seq(l->log) : 0;
	l->exited.shipping = counts(l);
	l->exited.started_at = l->running.started_at;
	l->exited.ended_at = clock_unix_ns();
	move(l, LIFE_EXITED);
	log_info("job ended", F("job", job_of(l)->job_id), F("attempt", job_of(l)->attempt),
		 F("reason", shim_reason_name((enum shim_reason)l->exited.reason)), F("lines", l->exited.last_seq));
	tell_exited(l);
	tell_client(l);
	maybe_stop(l);
}

/* All that decides the outcome stands in the facts. */
static void end(struct life *l)
{
	if (l->state == LIFE_ENDING || l->state == LIFE_EXITED)
		return;
	move(l, LIFE_ENDING);
	loop_timer_set(l->limit_timer, LOOP_NEVER);
	loop_timer_set(l->kill_timer, LOOP_NEVER);
	if (l->workspace != NULL)
		workspace_stop(l->workspace);
	if (l->talk != NULL)
		talk_job_ended(l->talk);
	if (l->machine != NULL && !l->vm_gone)
		machine_kill(l->machine);
	else
		l->vm_gone = true;
	conclude(l);
}

static void fail_start(struct life *l, const struct err *err)
{
	l->facts.start_failed = *err;
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
	if (l->facts.stop == STOP_NONE)
		l->facts.stop = cause;
	if (!l->facts.sent) {
		end(l);
		return;
	}
	channel_send_signal(l->channel, SIGTERM, grace_ns > 0 ? grace_ns : 1);
	int64_t kill_at_ns = clock_monotonic_ns() + grace_ns + KILL_MARGIN_NS;
	if (l->kill_at_ns == 0 || kill_at_ns < l->kill_at_ns)
		l->kill_at_ns = kill_at_ns;
	loop_timer_set(l->kill_timer, l->kill_at_ns);
}

static void on_limit(void *ctx)
{
	struct life *l = ctx;

	stop_job(l, STOP_TIMEOUT, job_of(l)->grace_ns);
}

static void on_kill(void *ctx)
{
	end(ctx);
}

/* The VM is destroyed, and of this attempt nothing more is sent, whatever was reached. */
static void lose_lease(struct life *l)
{
	if (l->state == LIFE_SPARE) {
		stop(l); /* nobody came */
		return;
	}
	if (l->acknowledged || l->state == LIFE_WAITING || l->facts.stop == STOP_LEASE)
		return;
	log_warn("the lease is over: destroying the VM", F("job", job_of(l)->job_id), F("attempt", job_of(l)->attempt));
	l->facts.stop = STOP_LEASE;
	if (l->log != NULL)
		job_log_stop(l->log);
	if (l->state == LIFE_EXITED) {
		outcome_of(&l->facts, l->message, &l->exited);
		tell_exited(l);
		maybe_stop(l);
	} else if (l->state == LIFE_ENDING) {
		conclude(l);
	} else {
		end(l);
	}
}

static void on_deadline(void *ctx)
{
	lose_lease(ctx);
}

/* --- the log --- */

/* Disk and client both have room for what the job says. */
static void set_room(const struct life *l)
{
	if (l->channel != NULL)
		channel_room(l->channel, l->log_room && l->talk_room);
}

static void on_room(void *ctx, bool has_room)
{
	struct life *l = ctx;

	l->log_room = has_room;
	set_room(l);
}

static void on_log_retry(void *ctx)
{
	struct life *l = ctx;

	if (l->state == LIFE_ENDING)
		conclude(l);
	else if (l->state != LIFE_EXITED)
		job_log_flush(l->log);
}

static void on_shipped(void *ctx)
{
	maybe_stop(ctx);
}

static const struct job_log_ops log_ops = {.room = on_room, .shipped = on_shipped, .retry = on_log_retry};

static int open_log(struct life *l, struct err *err)
{
	return job_log_open(l->opts.loop, l->opts.dir_fd, &l->start_msg, &log_ops, l, &l->log, err);
}

/* --- the guest --- */

/* All that is new in each VM, and the time as it is now. */
static void say_hello(void *ctx)
{
	struct life *l = ctx;
	const struct shim_start *job = job_of(l);
	autofree char *name = xasprintf("nimbus-%" PRId64, job->job_id);
	struct guest_hello hello;

	loop_timer_set(l->hello_timer, LOOP_NEVER);
	if (l->channel == NULL || l->state != LIFE_BOOTING)
		return;
	vm_hello(job->hostname != NULL ? job->hostname : name, &hello);
	if (l->network != NULL)
		hello.network = *network_address(l->network);
	hello.wall_ns = clock_unix_ns(); /* as late as can be */
	channel_hello(l->channel, &hello);
	secret_wipe(hello.entropy, sizeof(hello.entropy));
}

static void on_ready(void *ctx, const struct guest_ack *ack)
{
	static const char *const accels[2][2] = {{"tcg", "tcg clone"}, {"kvm", "kvm clone"}};
	struct life *l = ctx;

	if (l->state != LIFE_BOOTING || l->again)
		return;
	if (l->network != NULL && (ack->done & GUEST_DONE_NETWORK) == 0) {
		struct err err = {0};
		(void)err_set(&err, ERR_UNAVAILABLE, "network 'open': the guest could not set up its device");
		fail_start(l, &err);
		return;
	}
	l->facts.answered = true;
	machine_forget_words(l->machine);
	l->booted = (struct shim_booted){.vmm_started_ns = l->launched_ns,
					 .guest_answered_ns = clock_monotonic_ns(),
					 .kernel_ns = ack->init_ns,
					 .accel = accels[job_of(l)->accel == VM_KVM][l->is_clone],
					 .vmm_up_ns = l->booted.vmm_up_ns,
					 .restored_ns = l->booted.restored_ns,
					 .waited_ns = l->booted.waited_ns,
					 .template_error = l->clone_error[0] != '\0' ? l->clone_error : NULL,
					 .verity = (ack->done & GUEST_DONE_VERITY) != 0};
	msg_fds_fini(&l->start_fds);
	move(l, LIFE_BOOTED);
	if (job_of(l)->inputs.count > 0 && l->workspace != NULL) {
		l->bringing = true;
		workspace_bring(l->workspace, channel_streams(l->channel), machine_window(l->machine));
	}
	if (l->state == LIFE_BOOTED)
		tell_booted(l);
}

static void on_started(void *ctx)
{
	struct life *l = ctx;

	if (l->state != LIFE_BOOTED)
		return;
	l->running = (struct shim_running){.started_ns = clock_monotonic_ns(), .started_at = clock_unix_ns()};
	move(l, LIFE_RUNNING);
	tell_running(l);
	if (l->talk != NULL)
		talk_job_started(l->talk,
				 &(struct session_started){.queued_ns = job_of(l)->queued_ns,
							   .vm_ns = l->booted.guest_answered_ns - l->start_ns});
}

static void on_output(void *ctx, enum log_stream stream, struct str bytes)
{
	struct life *l = ctx;

	job_log_feed(l->log, stream, bytes);
	if (l->talk != NULL)
		talk_output(l->talk, stream, bytes);
}

static void on_settled(void *ctx)
{
	struct life *l = ctx;

	if (l->log != NULL) /* a spare has none */
		job_log_flush(l->log);
}

static void on_finished(void *ctx, const struct guest_exit *exit)
{
	struct life *l = ctx;

	l->facts.exited = true;
	l->facts.exit = *exit;
	l->exited_ns = clock_monotonic_ns();
	if (l->state != LIFE_RUNNING || l->facts.stop != STOP_NONE || job_of(l)->outputs.count == 0 ||
	    l->workspace == NULL) {
		end(l);
		return;
	}
	l->collecting = true;
	loop_timer_set(l->limit_timer, LOOP_NEVER);
	job_log_flush(l->log);
	workspace_collect(l->workspace, channel_streams(l->channel), machine_window(l->machine));
}

/* In the job's log, and for who talks with it. */
static void notice(struct life *l, const char *text)
{
	job_log_note(l->log, text);
	job_log_flush(l->log);
	if (l->talk != NULL)
		talk_notice(l->talk, text);
}

/* --- a VM that does not come up: it boots once more, since no job was in it --- */

static bool give_up(struct life *l)
{
	l->again = true;
	machine_kill(l->machine);
	return true;
}

static bool give_up_clone(struct life *l, const char *why)
{
	if (l->state != LIFE_BOOTING || !l->is_clone)
		return false;
	if (l->clone_error[0] == '\0') {
		(void)snprintf(l->clone_error, sizeof(l->clone_error), "%s", why[0] != '\0' ? why : "it ended");
		log_warn("a clone could not be used: the VM boots instead", F("job", job_of(l)->job_id),
			 F("template", job_of(l)->template), F("why", l->clone_error));
	}
	return give_up(l);
}

/* For no fault of the job's: docs/testing.md has how a guest comes to stand still, or to end itself. */
static bool give_up_boot(struct life *l, const char *why)
{
	char note[OUTCOME_TEXT_SIZE];

	if (l->state != LIFE_BOOTING || l->exited.restarts > 0)
		return false;
	l->exited.restarts++;
	log_warn("a VM did not come up: it is started once more", F("job", job_of(l)->job_id),
		 F("attempt", job_of(l)->attempt), F("waited_ms", (clock_monotonic_ns() - l->launched_ns) / NS_PER_MS),
		 F("why", why), F("last_words", machine_last_words(l->machine)));
	(void)snprintf(note, sizeof(note), "the VM did not come up (%s): it is started once more", why);
	notice(l, note);
	return give_up(l);
}

/* Twice nothing: with what the console said last. */
static void fail_boot(struct life *l)
{
	const char *words = machine_last_words(l->machine);
	struct err err = {0};

	(void)err_set(&err, ERR_TIMEOUT, "the VM was started twice, and its guest did not answer in time%s%s",
		      words[0] != '\0' ? "; its last words: " : "", words);
	fail_start(l, &err);
}

/* --- a spare --- */

/* Nothing is lost with it but itself. */
static void end_spare(struct life *l, const char *why)
{
	log_warn("a spare VM goes", F("template", job_of(l)->template), F("why", why));
	stop(l);
}

/* It has all that a VM has before it is anybody's. From here on it stands still. */
static void rest(void *ctx)
{
	struct life *l = ctx;
	struct err err = {0};

	if (l->state != LIFE_SPARE)
		return;
	if (machine_hold(l->machine, &err) < 0) {
		end_spare(l, err.msg);
		return;
	}
	channel_wait_until(l->channel, LOOP_NEVER);
	l->ready_ns = clock_monotonic_ns();
	tell(l, &(struct shim_msg){.type = SHIM_READY});
}

/* The guest goes once through all that a job's start costs, which leaves no trace: what QEMU has to translate for it is
 * translated before a job waits for it. */
static void warm_up(struct life *l)
{
	if (l->channel == NULL && l->booted.restored_ns != 0)
		end_spare(l, "there is no channel to its guest");
	else if (l->channel != NULL && l->booted.restored_ns != 0)
		channel_rehearse(l->channel, crypto_random_u64());
}

static void on_lost(void *ctx, const struct err *err)
{
	struct life *l = ctx;
	bool late = err->code == ERR_TIMEOUT && l->state == LIFE_BOOTING;

	if (l->state == LIFE_SPARE) {
		end_spare(l, err->msg);
		return;
	}
	if (give_up_clone(l, err->msg) || (late && give_up_boot(l, err->msg)))
		return;
	if (late) {
		fail_boot(l);
		return;
	}
	l->facts.guest_lost = *err;
	end(l);
}

static void on_service(void *ctx, const char *name, struct stream *st, struct err *err)
{
	struct life *l = ctx;

	if (l->services != NULL)
		services_open(l->services, name, st, err);
}

static void go_on(struct life *l);

static void on_timely(void *ctx)
{
	go_on(ctx);
}

static const struct channel_ops channel_ops = {
	.timely = on_timely,
	.service = on_service,
	.listens = say_hello,
	.ready = on_ready,
	.started = on_started,
	.output = on_output,
	.settled = on_settled,
	.finished = on_finished,
	.lost = on_lost,
	.rehearsed = rest,
};

/* --- the VM --- */

/* How long the guest has to answer. */
static int64_t hello_timeout(const struct life *l)
{
	int64_t alone_ns = l->is_clone ? CLONE_TIMEOUT_NS : BOOT_TIMEOUT_NS;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	double load = 0;

	if (l->opts.hello_timeout_ns != 0)
		return l->opts.hello_timeout_ns;
	if (getloadavg(&load, 1) != 1 || cpus < 1 || load <= (double)cpus)
		return alone_ns;
	double busy_ns = (double)alone_ns * load / (double)cpus;
	return busy_ns < (double)HELLO_TIMEOUT_MOST_NS ? (int64_t)busy_ns : HELLO_TIMEOUT_MOST_NS;
}

static void on_vm_connected(void *ctx, int fd)
{
	struct life *l = ctx;
	struct err err = {0};

	if (l->state != LIFE_BOOTING && l->state != LIFE_SPARE) {
		fd_close(&fd);
		return;
	}
	const struct channel_opts opts = {.loop = l->opts.loop,
					  .fd = fd,
					  .hello_deadline_ns = l->launched_ns + hello_timeout(l),
					  .ops = &channel_ops,
					  .ctx = l};
	int rc = channel_new(&opts, &l->channel, &err);
	if (l->state == LIFE_SPARE)
		warm_up(l);
	else if (rc < 0)
		fail_start(l, &err);
	else if (!l->is_clone)
		loop_timer_set(l->hello_timer, l->launched_ns + LISTEN_NS);
	else if (l->booted.restored_ns != 0)
		say_hello(l);
}

static void on_spare_told(struct life *l, enum vm_news news, const char *text)
{
	if (news == VM_NEWS_REFUSED)
		end_spare(l, text);
	if (news != VM_NEWS_RUNS || l->booted.restored_ns != 0)
		return;
	l->booted.restored_ns = clock_monotonic_ns();
	warm_up(l);
}

static void on_vm_told(void *ctx, enum vm_news news, const char *text)
{
	struct life *l = ctx;

	if (l->state == LIFE_SPARE) {
		on_spare_told(l, news, text);
		return;
	}
	if (news == VM_NEWS_UP)
		l->booted.vmm_up_ns = clock_monotonic_ns();
	else if (news == VM_NEWS_REFUSED && !give_up_clone(l, text))
		log_warn("the VMM refused what it was told", F("job", job_of(l)->job_id), F("why", text));
	/* Its guest has said that it listens when it was saved. */
	if (news == VM_NEWS_RUNS && l->is_clone && l->booted.restored_ns == 0) {
		l->booted.restored_ns = clock_monotonic_ns();
		say_hello(l);
	}
}

static void on_vm_ended(void *ctx, const struct process_exit *exit)
{
	struct life *l = ctx;

	/* By its guest's will: a VMM that fails says so with another code, and would again. */
	bool ended_itself = exit->exited && exit->code == 0;

	l->vm_gone = true;
	if (l->state == LIFE_SPARE) {
		end_spare(l, machine_last_words(l->machine));
		return;
	}
	bool again = l->again || give_up_clone(l, machine_last_words(l->machine)) ||
		     (ended_itself && give_up_boot(l, "it ended"));
	if (again && l->state == LIFE_BOOTING) {
		loop_timer_set(l->again_timer, clock_monotonic_ns());
		return;
	}
	if (l->network != NULL)
		network_let_go(l->network);
	l->exited.usage = (struct shim_usage){.wall_ns = clock_monotonic_ns() - l->launched_ns,
					      .user_ns = exit->user_ns,
					      .system_ns = exit->system_ns,
					      .max_rss_bytes = exit->max_rss_bytes};
	/* Else by itself; but what its guest said before may be the job's end. */
	l->facts.vm_ended = l->state != LIFE_ENDING;
	l->facts.vmm = *exit;
	if (l->channel != NULL)
		channel_close(l->channel);
	end(l);
	conclude(l);
}

/* The job's own log says why nothing moves; limits and lease hold as ever. */
static void on_vm_stalled(void *ctx, bool stalled)
{
	struct life *l = ctx;

	if (l->state == LIFE_SPARE)
		return; /* it has not written anything; its job, if one comes, is told the next time */
	if (stalled && !l->stalled) {
		log_warn("the host's disk is full: the VM stands still until there is room",
			 F("job", job_of(l)->job_id), F("attempt", job_of(l)->attempt));
		job_log_note(l->log, "the host's disk is full: the job stands still until there is room");
		job_log_flush(l->log);
	} else if (!stalled) {
		log_info("the host's disk has room again: the VM goes on", F("job", job_of(l)->job_id));
	}
	l->stalled = stalled;
	if (l->channel != NULL)
		channel_excuse(l->channel);
}

static const struct machine_ops machine_ops = {
	.connected = on_vm_connected, .told = on_vm_told, .stalled = on_vm_stalled, .ended = on_vm_ended};

static int start_vm(struct life *l, struct err *err)
{
	const struct shim_start *job = job_of(l);
	const struct msg_fds *fds = &l->start_fds;
	bool clone = job->template != NULL && fds->count > SHIM_START_FD_STATE && l->clone_error[0] == '\0';
	autofree char *name = job->job_id != 0 ? xasprintf("%" PRId64 "-%" PRId64, job->job_id, job->attempt)
					       : xasprintf("spare-%d", (int)getpid());
	bool scratch = fds->count > SHIM_START_FD_SCRATCH;
	const struct vm_spec spec = {.name = name,
				     .dir_fd = l->opts.dir_fd,
				     .origin = clone ? VM_CLONE : VM_COLD,
				     .memory_fd = clone ? fds->fds[SHIM_START_FD_MEMORY] : -1,
				     .state_fd = clone ? fds->fds[SHIM_START_FD_STATE] : -1,
				     .kernel_fd = fds->fds[SHIM_START_FD_KERNEL],
				     .initrd_fd = fds->fds[SHIM_START_FD_INITRD],
				     .root_fd = fds->fds[SHIM_START_FD_ROOTFS],
				     .scratch_fd = scratch ? fds->fds[SHIM_START_FD_SCRATCH] : -1,
				     .network = l->network != NULL,
				     .network_fd = l->network != NULL ? network_vm_fd(l->network) : -1,
				     .vcpus = (unsigned)job->vcpus,
				     .memory_mb = (unsigned)job->memory_mb,
				     .accel = job->accel == VM_KVM ? VM_KVM : VM_TCG,
				     .program = job->vmm,
				     .tsc_khz = job->tsc_khz};

	if (fds->count < SHIM_START_FD_SCRATCH)
		return err_set(err, ERR_INVALID, "start came with %zu descriptors, not kernel, initrd and rootfs",
			       fds->count);
	if (job->vcpus > VM_VCPUS_MAX || job->memory_mb < VM_MEMORY_MB_MIN || job->memory_mb > VM_MEMORY_MB_MAX)
		return err_set(err, ERR_INVALID, "%" PRId64 " vcpus with %" PRId64 " MB are no VM of ours", job->vcpus,
			       job->memory_mb);
	l->is_clone = clone;
	l->launched_ns = clock_monotonic_ns();
	return machine_start(l->opts.loop, l->opts.driver, &spec, &machine_ops, l, &l->machine, err);
}

/* --- its services --- */

static int open_services(struct life *l, struct err *err)
{
	const struct services_opts opts = {.loop = l->opts.loop,
					   .logs_url = job_of(l)->log_url,
					   .token = job_of(l)->services_token,
					   .names = job_of(l)->network == SHIM_NETWORK_OPEN};

	return services_new(&opts, &l->services, err);
}

/* --- who talks with it, and its files --- */

static void on_talk_room(void *ctx, bool has_room)
{
	struct life *l = ctx;

	l->talk_room = has_room;
	set_room(l);
}

static void on_talk_over(void *ctx)
{
	maybe_stop(ctx);
}

static const struct talk_ops talk_ops = {.room = on_talk_room, .over = on_talk_over};

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

static void on_missing(void *ctx, const char *text)
{
	notice(ctx, text);
}

static void on_collected(void *ctx)
{
	end(ctx);
}

static const struct workspace_ops workspace_ops = {
	.brought = on_brought, .missing = on_missing, .collected = on_collected};

static int open_control(struct life *l, struct err *err)
{
	const struct shim_start *job = job_of(l);
	struct talk_opts talk = {.loop = l->opts.loop, .job = job, .ops = &talk_ops, .ctx = l};

	if (job->control_url == NULL || job->job_token == NULL) {
		if (job->inputs.count > 0 || job->session != 0)
			return err_set(err, ERR_UNSUPPORTED, "this agent cannot bring files, nor talk with a client");
		return 0;
	}
	int rc = http_client_new(l->opts.loop, &l->client, err);
	talk.client = l->client;
	if (rc == 0)
		rc = talk_new(&talk, &l->talk, err);
	if (rc < 0)
		return rc;
	const struct workspace_opts workspace = {
		.loop = l->opts.loop, .client = l->client, .job = job, .ops = &workspace_ops, .ctx = l};
	return workspace_new(&workspace, &l->workspace, err);
}

/* --- its network --- */

static void on_network_ready(void *ctx)
{
	struct life *l = ctx;
	struct err err = {0};

	if (l->state != LIFE_BOOTING)
		return;
	job_log_note(l->log, SHIM_NETWORK_OPEN_NOTE);
	job_log_flush(l->log);
	int rc = start_vm(l, &err);
	network_given(l->network);
	if (rc < 0)
		fail_start(l, &err);
}

static void on_network_failed(void *ctx, const struct err *err)
{
	fail_start(ctx, err);
}

static void on_network_gone(void *ctx, const struct err *err)
{
	struct life *l = ctx;

	if (l->state >= LIFE_ENDING)
		return;
	log_warn("a job has lost its network", F("job", job_of(l)->job_id), F("error", err));
	if (!l->facts.sent) {
		fail_start(l, err);
		return;
	}
	job_log_note(l->log, err->msg);
	job_log_flush(l->log);
}

static const struct network_ops network_ops = {
	.ready = on_network_ready,
	.failed = on_network_failed,
	.gone = on_network_gone,
};

/* The VM at once, or when there is a network for it. */
static int start_with_network(struct life *l, struct err *err)
{
	if (job_of(l)->network == SHIM_NETWORK_NONE)
		return start_vm(l, err);
	if (job_of(l)->network != SHIM_NETWORK_OPEN)
		return err_set(err, ERR_UNSUPPORTED, "network %" PRId64 " is none that this version knows",
			       job_of(l)->network);
	return network_start(l->opts.loop, &network_ops, l, &l->network, err);
}

/* It was given up and its VMM is gone. The disk of a clone is as the template's was: a guest boots from that too. */
static void start_again(void *ctx)
{
	struct life *l = ctx;
	struct err err = {0};

	if (l->state != LIFE_BOOTING)
		return;
	channel_free(TAKE(l->channel));
	machine_free(TAKE(l->machine));
	network_free(TAKE(l->network));
	l->booted = (struct shim_booted){0};
	l->vm_gone = l->again = false;
	if (start_with_network(l, &err) < 0)
		fail_start(l, &err);
}

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
	loop_timer_set(l->deadline_timer, job_of(l)->deadline_ns);
	l->start_fds = *fds;
	*fds = (struct msg_fds){0};
	if (start_vm(l, &err) < 0)
		end_spare(l, err.msg);
}

/* The machine is this job's now: it goes on where its template was saved, and hears who it is. */
static void wake(struct life *l)
{
	struct err err = {0};

	l->launched_ns = l->start_ns;
	if (l->ready_ns != 0) {
		l->booted = (struct shim_booted){.restored_ns = l->start_ns, .waited_ns = l->start_ns - l->ready_ns};
		/* A VMM that is not there any more says so by its end: then the VM boots. */
		if (machine_wake(l->machine, &err) < 0)
			machine_kill(l->machine);
	}
	if (l->channel != NULL)
		channel_wait_until(l->channel, l->launched_ns + hello_timeout(l));
	if (l->booted.restored_ns != 0)
		say_hello(l);
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
	l->start_ns = clock_monotonic_ns();
	loop_timer_set(l->deadline_timer, job_of(l)->deadline_ns);
	if (spare) {
		wake(l); /* what follows is done while the guest is at it */
		if (l->state != LIFE_BOOTING)
			return;
	} else {
		l->start_fds = *fds;
		*fds = (struct msg_fds){0};
	}
	int rc = open_log(l, &err);
	if (rc == 0)
		rc = open_control(l, &err);
	if (rc == 0)
		rc = open_services(l, &err);
	if (rc == 0 && spare && job_of(l)->network != SHIM_NETWORK_NONE)
		rc = err_set(&err, ERR_UNSUPPORTED, "a spare VM has no network");
	if (rc == 0 && !spare)
		rc = start_with_network(l, &err);
	if (rc < 0)
		fail_start(l, &err);
}

/* The job is over and acknowledged; another shim was to ship its log, and is no more. */
static void on_resume(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	autovar(buf) bytes = {0};
	autovar(shim_msg) start = {0};
	struct err err = {0};

	(void)fds;
	(void)m;
	if (l->state != LIFE_WAITING)
		return;
	int rc = file_read(l->opts.dir_fd, SHIM_SHIP_FILE, SHIM_MSG_MAX, &bytes, &err);
	if (rc == 0)
		rc = shim_msg_decode(buf_str(&bytes), *arena, &start, &err);
	if (rc == 0 && start.type != SHIM_START)
		rc = err_set(&err, ERR_INVALID, "%s holds another message", SHIM_SHIP_FILE);
	if (bytes.data != NULL)
		secret_wipe(bytes.data, bytes.len);
	if (rc == 0) {
		keep_start(l, &start, arena);
		rc = open_log(l, &err);
	}
	if (rc < 0) {
		log_error("the log that another shim left cannot be shipped", F("error", &err));
		stop(l);
		return;
	}
	l->acknowledged = true;
	move(l, LIFE_EXITED);
	job_log_flush(l->log);
	maybe_stop(l);
}

static int send_job(struct life *l, const struct shim_go *go, struct err *err)
{
	autofree struct guest_job *job = xcalloc(1, sizeof(*job));
	autovar(buf) text = {0};

	int rc = job_compose(job_of(l), go, l->services, job, &text, err);
	if (rc == 0)
		rc = channel_send_job(l->channel, job, err);
	if (text.data != NULL)
		secret_wipe(text.data, text.cap);
	return rc;
}

static void on_go(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	(void)fds;
	if (l->state != LIFE_BOOTED || l->facts.sent || l->go_arena != NULL)
		return;
	for (size_t i = 0; i < m->go.count; i++)
		job_log_mask(l->log, m->go.items[i].name, secret_reveal(m->go.items[i].value));
	l->go = *m;
	*m = (struct shim_msg){0};
	l->go_arena = TAKE(*arena);
	go_on(l);
}

/* The job, once its inputs are there, its clock is right and the agent has said so. */
static void go_on(struct life *l)
{
	struct err err = {0};

	if (l->state != LIFE_BOOTED || l->facts.sent || l->bringing || l->go_arena == NULL ||
	    !channel_clock_is_near(l->channel))
		return;
	int rc = send_job(l, &l->go.go, &err);
	shim_msg_fini(&l->go);
	if (rc < 0) {
		fail_start(l, &err);
		return;
	}
	l->facts.sent = true;
	if (l->talk != NULL)
		talk_job_sent(l->talk, l->channel);
	l->facts.timeout_ns = job_of(l)->timeout_ns;
	if (job_of(l)->timeout_ns > 0)
		loop_timer_set(l->limit_timer, clock_monotonic_ns() + job_of(l)->timeout_ns);
}

static void on_session(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	(void)arena;
	(void)fds;
	if (l->talk != NULL && l->state != LIFE_WAITING && l->state != LIFE_EXITED)
		talk_exec(l->talk, &m->session);
}

static void on_new_deadline(struct life *l, struct shim_msg *m, struct arena **arena, struct msg_fds *fds)
{
	(void)arena;
	(void)fds;
	if (l->log != NULL && m->deadline.log_url != NULL)
		job_log_redirect(l->log, m->deadline.log_url);
	if (l->services != NULL && m->deadline.log_url != NULL)
		services_redirect(l->services, m->deadline.log_url);
	count_services(l);
	if (m->deadline.counts != 0 && l->services != NULL)
		tell(l, &(struct shim_msg){.type = SHIM_SERVED, .served = l->exited.served});
	if (l->state < LIFE_BOOTING || l->acknowledged || l->facts.stop == STOP_LEASE)
		return;
	l->start_msg.start.deadline_ns = m->deadline.deadline_ns;
	loop_timer_set(l->deadline_timer, m->deadline.deadline_ns);
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
	l->acknowledged = true;
	loop_timer_set(l->deadline_timer, LOOP_NEVER);
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

	tell_hello(l);
	tell_booted(l);
	tell_running(l);
	tell_exited(l);
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

static int add_timers(struct life *l, struct err *err)
{
	struct loop *loop = l->opts.loop;

	int rc = loop_add_timer(loop, LOOP_NEVER, LOOP_URGENT, on_deadline, l, &l->deadline_timer, err);
	if (rc == 0)
		rc = loop_add_timer(loop, LOOP_NEVER, LOOP_NORMAL, say_hello, l, &l->hello_timer, err);
	if (rc == 0)
		rc = loop_add_timer(loop, LOOP_NEVER, LOOP_NORMAL, start_again, l, &l->again_timer, err);
	if (rc == 0)
		rc = loop_add_timer(loop, LOOP_NEVER, LOOP_NORMAL, on_limit, l, &l->limit_timer, err);
	if (rc == 0)
		rc = loop_add_timer(loop, LOOP_NEVER, LOOP_NORMAL, on_kill, l, &l->kill_timer, err);
	return rc;
}

int life_new(const struct life_opts *opts, struct life **ret, struct err *err)
{
	autoclose agent_fd = opts->agent_fd;
	autoptr(life) l = xcalloc(1, sizeof(*l));

	l->opts = *opts;
	l->log_room = l->talk_room = true;
	int rc = add_timers(l, err);
	if (rc < 0)
		return rc;
	const struct link_opts link_opts = {
		.loop = opts->loop, .dir_fd = opts->dir_fd, .agent_fd = fd_take(&agent_fd), .ops = &link_ops, .ctx = l};
	rc = link_new(&link_opts, &l->link, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

void life_free(struct life *l)
{
	if (l == NULL)
		return;
	workspace_free(l->workspace);
	talk_free(l->talk);
	channel_free(l->channel);
	http_client_free(l->client);
	shim_msg_fini(&l->go);
	arena_free(l->go_arena);
	machine_free(l->machine);
	services_free(l->services);
	network_free(l->network);
	msg_fds_fini(&l->start_fds);
	job_log_free(l->log);
	link_free(l->link);
	loop_source_free(l->deadline_timer);
	loop_source_free(l->hello_timer);
	loop_source_free(l->again_timer);
	loop_source_free(l->limit_timer);
	loop_source_free(l->kill_timer);
	shim_msg_fini(&l->start_msg);
	arena_free(l->arena);
	fd_close(&l->opts.dir_fd);
	free(l);
}
