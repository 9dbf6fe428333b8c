#include "shim/job_vm.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "shim/machine.h"
#include "shim/network.h"
#include "shim/patience.h"
#include "vm/handshake.h"

/* A guest of an older build does not say that it listens. */
#define LISTEN_NS (5 * NS_PER_S)

/* Of a sentence for people. */
enum { TEXT_SIZE = 512 };

enum phase { IDLE, SPARE, STARTING, UP, OVER };

struct job_vm {
	struct job_vm_opts opts;
	enum phase phase;
	struct loop_source *hello_timer;
	struct loop_source *again_timer; /* the VM boots, where the one before was given up */
	struct msg_fds fds;		 /* until the guest has answered */
	struct network *network;	 /* NULL: the VM has none */
	struct machine *machine;
	struct channel *channel;
	bool gone;		     /* the machine is */
	bool is_clone;		     /* the machine is, or was to be */
	char clone_error[TEXT_SIZE]; /* why it boots instead; "": it does not */
	int64_t restarts;
	bool again;	  /* given up: when it is gone, it boots */
	bool stalled;	  /* told in the log */
	bool refused;	  /* the same: a VMM may say as often as it likes that it refuses something */
	int64_t ready_ns; /* it is a spare that waits, since then; 0: not yet */
	int64_t launched_ns;
	struct shim_booted booted;
};

static const struct shim_start *job_of(const struct job_vm *v)
{
	return v->opts.job;
}

static void fail(struct job_vm *v, const struct err *err)
{
	v->opts.ops->failed(v->opts.ctx, err);
}

/* --- who the guest is --- */

/* All that is new in each VM, and the time as it is now. */
static void say_hello(void *ctx)
{
	struct job_vm *v = ctx;
	const struct shim_start *job = job_of(v);
	autofree char *name = xasprintf("nimbus-%" PRId64, job->job_id);
	struct guest_hello hello;

	loop_timer_set(v->hello_timer, LOOP_NEVER);
	if (v->channel == NULL || v->phase != STARTING)
		return;
	vm_hello(job->hostname != NULL ? job->hostname : name, &hello);
	if (v->network != NULL)
		hello.network = *network_address(v->network);
	hello.wall_ns = clock_unix_ns(); /* as late as can be */
	channel_hello(v->channel, &hello);
	secret_wipe(hello.entropy, sizeof(hello.entropy));
}

static void on_ready(void *ctx, const struct guest_ack *ack)
{
	static const char *const accels[2][2] = {{"tcg", "tcg clone"}, {"kvm", "kvm clone"}};
	struct job_vm *v = ctx;

	if (v->phase != STARTING || v->again)
		return;
	if (v->network != NULL && (ack->done & GUEST_DONE_NETWORK) == 0) {
		struct err err = {0};
		(void)err_set(&err, ERR_UNAVAILABLE, "network 'open': the guest could not set up its device");
		fail(v, &err);
		return;
	}
	machine_forget_words(v->machine);
	v->booted.vmm_started_ns = v->launched_ns;
	v->booted.guest_answered_ns = clock_monotonic_ns();
	v->booted.kernel_ns = ack->init_ns;
	v->booted.accel = accels[job_of(v)->accel == VM_KVM][v->is_clone];
	v->booted.template_error = v->clone_error[0] != '\0' ? v->clone_error : NULL;
	v->booted.verity = (ack->done & GUEST_DONE_VERITY) != 0;
	msg_fds_fini(&v->fds);
	v->phase = UP;
	v->opts.ops->up(v->opts.ctx, &v->booted);
}

/* --- a VM that does not come up: it boots once more, since no job was in it --- */

static bool give_up(struct job_vm *v)
{
	v->again = true;
	machine_kill(v->machine);
	return true;
}

static bool give_up_clone(struct job_vm *v, const char *why)
{
	if (v->phase != STARTING || !v->is_clone)
		return false;
	if (v->clone_error[0] == '\0') {
		(void)snprintf(v->clone_error, sizeof(v->clone_error), "%s", why[0] != '\0' ? why : "it ended");
		log_warn("a clone could not be used: the VM boots instead", F("job", job_of(v)->job_id),
			 F("template", job_of(v)->template), F("why", v->clone_error));
	}
	return give_up(v);
}

/* For no fault of the job's: docs/testing.md has how a guest comes to stand still, or to end itself. */
static bool give_up_boot(struct job_vm *v, const char *why)
{
	char text[TEXT_SIZE];

	if (v->phase != STARTING || v->restarts > 0)
		return false;
	v->restarts++;
	log_warn("a VM did not come up: it is started once more", F("job", job_of(v)->job_id),
		 F("attempt", job_of(v)->attempt), F("waited_ms", (clock_monotonic_ns() - v->launched_ns) / NS_PER_MS),
		 F("why", why), F("last_words", machine_last_words(v->machine)));
	(void)snprintf(text, sizeof(text), "the VM did not come up (%s): it is started once more", why);
	outside_notice(v->opts.outside, text);
	return give_up(v);
}

/* Twice nothing: with what the console said last. */
static void fail_boot(struct job_vm *v)
{
	const char *words = machine_last_words(v->machine);
	struct err err = {0};

	(void)err_set(&err, ERR_TIMEOUT, "the VM was started twice, and its guest did not answer in time%s%s",
		      words[0] != '\0' ? "; its last words: " : "", words);
	fail(v, &err);
}

/* --- a spare --- */

static void spoil(struct job_vm *v, const char *why)
{
	v->opts.ops->spoilt(v->opts.ctx, why);
}

/* It has all that a VM has before it is anybody's. From here on it stands still. */
static void on_rehearsed(void *ctx)
{
	struct job_vm *v = ctx;
	struct err err = {0};

	if (v->phase != SPARE)
		return;
	if (machine_hold(v->machine, &err) < 0) {
		spoil(v, err.msg);
		return;
	}
	channel_wait_until(v->channel, LOOP_NEVER);
	v->ready_ns = clock_monotonic_ns();
	v->opts.ops->rests(v->opts.ctx, machine_memory(v->machine));
}

/* The guest goes once through all that a job's start costs, which leaves no trace: what QEMU has to translate for it is
 * translated before a job waits for it. */
static void warm_up(struct job_vm *v)
{
	if (v->booted.restored_ns == 0)
		return;
	if (v->channel == NULL)
		spoil(v, "there is no channel to its guest");
	else
		channel_rehearse(v->channel, crypto_random_u64());
}

/* --- the channel --- */

static void on_lost(void *ctx, const struct err *err)
{
	struct job_vm *v = ctx;
	bool late = err->code == ERR_TIMEOUT && v->phase == STARTING;

	if (v->phase == SPARE)
		spoil(v, err->msg);
	else if (give_up_clone(v, err->msg) || (late && give_up_boot(v, err->msg)))
		return;
	else if (late)
		fail_boot(v);
	else
		v->opts.ops->lost(v->opts.ctx, err);
}

static void on_timely(void *ctx)
{
	struct job_vm *v = ctx;

	v->opts.ops->timely(v->opts.ctx);
}

static void on_started(void *ctx)
{
	struct job_vm *v = ctx;

	v->opts.ops->started(v->opts.ctx);
}

static void on_output(void *ctx, enum log_stream stream, struct str bytes)
{
	struct job_vm *v = ctx;

	outside_output(v->opts.outside, stream, bytes);
}

static void on_settled(void *ctx)
{
	struct job_vm *v = ctx;

	outside_flush(v->opts.outside);
}

static void on_finished(void *ctx, const struct guest_exit *exit)
{
	struct job_vm *v = ctx;

	v->opts.ops->finished(v->opts.ctx, exit);
}

static void on_service(void *ctx, const char *name, struct stream *st, struct err *err)
{
	struct job_vm *v = ctx;

	outside_serve(v->opts.outside, name, st, err);
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
	.rehearsed = on_rehearsed,
};

/* --- the machine --- */

static int64_t hello_deadline_ns(const struct job_vm *v)
{
	int64_t wait_ns = v->opts.hello_timeout_ns;

	return v->launched_ns + (wait_ns != 0 ? wait_ns : patience_now_ns(v->is_clone));
}

static void on_connected(void *ctx, int fd)
{
	struct job_vm *v = ctx;
	struct err err = {0};

	if (v->phase != STARTING && v->phase != SPARE) {
		fd_close(&fd);
		return;
	}
	const struct channel_opts opts = {.loop = v->opts.loop,
					  .fd = fd,
					  .hello_deadline_ns = hello_deadline_ns(v),
					  .ops = &channel_ops,
					  .ctx = v};
	int rc = channel_new(&opts, &v->channel, &err);
	if (v->phase == SPARE)
		warm_up(v);
	else if (rc < 0)
		fail(v, &err);
	else if (!v->is_clone)
		loop_timer_set(v->hello_timer, v->launched_ns + LISTEN_NS);
	else if (v->booted.restored_ns != 0)
		say_hello(v);
}

static void on_spare_told(struct job_vm *v, enum vm_news news, const char *text)
{
	if (news == VM_NEWS_REFUSED)
		spoil(v, text);
	if (news != VM_NEWS_RUNS || v->booted.restored_ns != 0)
		return;
	v->booted.restored_ns = clock_monotonic_ns();
	warm_up(v);
}

static void note_refusal(struct job_vm *v, const char *text)
{
	if (!v->refused)
		log_warn("the VMM refused what it was told", F("job", job_of(v)->job_id), F("why", text));
	v->refused = true;
}

static void on_told(void *ctx, enum vm_news news, const char *text)
{
	struct job_vm *v = ctx;

	if (v->phase == SPARE) {
		on_spare_told(v, news, text);
		return;
	}
	if (news == VM_NEWS_UP)
		v->booted.vmm_up_ns = clock_monotonic_ns();
	else if (news == VM_NEWS_REFUSED && !give_up_clone(v, text))
		note_refusal(v, text);
	/* Its guest has said that it listens when it was saved. */
	if (news == VM_NEWS_RUNS && v->is_clone && v->booted.restored_ns == 0) {
		v->booted.restored_ns = clock_monotonic_ns();
		say_hello(v);
	}
}

static void on_ended(void *ctx, const struct process_exit *exit)
{
	struct job_vm *v = ctx;
	/* By its guest's will: a VMM that fails says so with another code, and would again. */
	bool ended_itself = exit->exited && exit->code == 0;

	v->gone = true;
	if (v->phase == SPARE) {
		spoil(v, machine_last_words(v->machine));
		return;
	}
	bool again = v->again || give_up_clone(v, machine_last_words(v->machine)) ||
		     (ended_itself && give_up_boot(v, "it ended"));
	if (again && v->phase == STARTING) {
		loop_timer_set(v->again_timer, clock_monotonic_ns());
		return;
	}
	if (v->network != NULL)
		network_let_go(v->network);
	v->opts.ops->gone(v->opts.ctx, exit,
			  &(struct shim_usage){.wall_ns = clock_monotonic_ns() - v->launched_ns,
					       .user_ns = exit->user_ns,
					       .system_ns = exit->system_ns,
					       .max_rss_bytes = exit->max_rss_bytes});
}

/* The job's own log says why nothing moves; limits and lease hold as ever. */
static void on_stalled(void *ctx, bool stalled)
{
	struct job_vm *v = ctx;

	if (v->phase == SPARE)
		return; /* it has not written anything; its job, if one comes, is told the next time */
	if (stalled && !v->stalled) {
		log_warn("the host's disk is full: the VM stands still until there is room",
			 F("job", job_of(v)->job_id), F("attempt", job_of(v)->attempt));
		outside_note(v->opts.outside, "the host's disk is full: the job stands still until there is room");
	} else if (!stalled) {
		log_info("the host's disk has room again: the VM goes on", F("job", job_of(v)->job_id));
	}
	v->stalled = stalled;
	if (v->channel != NULL)
		channel_excuse(v->channel);
}

static const struct machine_ops machine_ops = {
	.connected = on_connected, .told = on_told, .stalled = on_stalled, .ended = on_ended};

static int check_order(const struct job_vm *v, struct err *err)
{
	const struct shim_start *job = job_of(v);

	if (v->fds.count < SHIM_START_FD_SCRATCH)
		return err_set(err, ERR_INVALID, "start came with %zu descriptors, not kernel, initrd and rootfs",
			       v->fds.count);
	if (job->vcpus > VM_VCPUS_MAX || job->memory_mb < VM_MEMORY_MB_MIN || job->memory_mb > VM_MEMORY_MB_MAX)
		return err_set(err, ERR_INVALID, "%" PRId64 " vcpus with %" PRId64 " MB are no VM of ours", job->vcpus,
			       job->memory_mb);
	return 0;
}

static int start_machine(struct job_vm *v, struct err *err)
{
	const struct shim_start *job = job_of(v);
	const struct msg_fds *fds = &v->fds;
	bool clone = job->template != NULL && fds->count > SHIM_START_FD_STATE && v->clone_error[0] == '\0';
	autofree char *name = job->job_id != 0 ? xasprintf("%" PRId64 "-%" PRId64, job->job_id, job->attempt)
					       : xasprintf("spare-%d", (int)getpid());
	bool scratch = fds->count > SHIM_START_FD_SCRATCH;
	const struct vm_spec spec = {.name = name,
				     .dir_fd = v->opts.dir_fd,
				     .origin = clone ? VM_CLONE : VM_COLD,
				     .memory_fd = clone ? fds->fds[SHIM_START_FD_MEMORY] : -1,
				     .state_fd = clone ? fds->fds[SHIM_START_FD_STATE] : -1,
				     .kernel_fd = fds->fds[SHIM_START_FD_KERNEL],
				     .initrd_fd = fds->fds[SHIM_START_FD_INITRD],
				     .root_fd = fds->fds[SHIM_START_FD_ROOTFS],
				     .scratch_fd = scratch ? fds->fds[SHIM_START_FD_SCRATCH] : -1,
				     .network = v->network != NULL,
				     .network_fd = v->network != NULL ? network_vm_fd(v->network) : -1,
				     .vcpus = (unsigned)job->vcpus,
				     .memory_mb = (unsigned)job->memory_mb,
				     .accel = job->accel == VM_KVM ? VM_KVM : VM_TCG,
				     .program = job->vmm,
				     .tsc_khz = job->tsc_khz};

	int rc = check_order(v, err);
	if (rc < 0)
		return rc;
	v->is_clone = clone;
	v->launched_ns = clock_monotonic_ns();
	return machine_start(v->opts.loop, v->opts.driver, &spec, &machine_ops, v, &v->machine, err);
}

/* --- its network --- */

static void on_network_ready(void *ctx)
{
	struct job_vm *v = ctx;
	struct err err = {0};

	if (v->phase != STARTING)
		return;
	outside_note(v->opts.outside, SHIM_NETWORK_OPEN_NOTE);
	int rc = start_machine(v, &err);
	network_given(v->network);
	if (rc < 0)
		fail(v, &err);
}

static void on_network_failed(void *ctx, const struct err *err)
{
	struct job_vm *v = ctx;

	if (v->phase == STARTING)
		fail(v, err);
}

static void on_network_gone(void *ctx, const struct err *err)
{
	struct job_vm *v = ctx;

	if (v->phase != OVER)
		v->opts.ops->cut_off(v->opts.ctx, err);
}

static const struct network_ops network_ops = {
	.ready = on_network_ready,
	.failed = on_network_failed,
	.gone = on_network_gone,
};

/* The machine at once, or when there is a network for it. */
static int start_with_network(struct job_vm *v, struct err *err)
{
	if (job_of(v)->network == SHIM_NETWORK_NONE)
		return start_machine(v, err);
	if (job_of(v)->network != SHIM_NETWORK_OPEN)
		return err_set(err, ERR_UNSUPPORTED, "network %" PRId64 " is none that this version knows",
			       job_of(v)->network);
	return network_start(v->opts.loop, &network_ops, v, &v->network, err);
}

/* It was given up and its VMM is gone. The disk of a clone is as the template's was: a guest boots from that too. */
static void start_again(void *ctx)
{
	struct job_vm *v = ctx;
	struct err err = {0};

	if (v->phase != STARTING)
		return;
	channel_free(TAKE(v->channel));
	machine_free(TAKE(v->machine));
	network_free(TAKE(v->network));
	v->booted = (struct shim_booted){0};
	v->gone = v->again = v->refused = false;
	if (start_with_network(v, &err) < 0)
		fail(v, &err);
}

/* --- what its user does --- */

int job_vm_start_spare(struct job_vm *v, struct msg_fds *fds, struct err *err)
{
	v->phase = SPARE;
	v->fds = TAKE_STRUCT(*fds);
	return start_machine(v, err);
}

void job_vm_wake(struct job_vm *v, int64_t since_ns)
{
	struct err err = {0};

	v->phase = STARTING;
	v->launched_ns = since_ns;
	/* Its times are the job's, which begin now. */
	if (v->booted.restored_ns != 0)
		v->booted.restored_ns = since_ns;
	v->booted.early = v->ready_ns == 0;
	if (v->ready_ns != 0) {
		v->booted.waited_ns = since_ns - v->ready_ns;
		/* A VMM that is not there any more says so by its end: then the VM boots. */
		if (machine_wake(v->machine, &err) < 0)
			machine_kill(v->machine);
	}
	if (v->channel != NULL)
		channel_wait_until(v->channel, hello_deadline_ns(v));
	if (v->booted.restored_ns != 0)
		say_hello(v);
}

int job_vm_start(struct job_vm *v, struct msg_fds *fds, struct err *err)
{
	v->phase = STARTING;
	v->fds = TAKE_STRUCT(*fds);
	return start_with_network(v, err);
}

struct channel *job_vm_channel(struct job_vm *v)
{
	return v->channel;
}

int job_vm_window(const struct job_vm *v)
{
	return machine_window(v->machine);
}

const char *job_vm_last_words(struct job_vm *v)
{
	return v->machine != NULL ? machine_last_words(v->machine) : "";
}

int64_t job_vm_restarts(const struct job_vm *v)
{
	return v->restarts;
}

bool job_vm_end(struct job_vm *v)
{
	v->phase = OVER;
	if (v->machine != NULL && !v->gone) {
		machine_kill(v->machine);
		return true;
	}
	/* No machine takes it along, or it is still on its way. */
	network_free(TAKE(v->network));
	return false;
}

/* --- making and freeing --- */

int job_vm_new(const struct job_vm_opts *opts, struct job_vm **ret, struct err *err)
{
	autoptr(job_vm) v = xcalloc(1, sizeof(*v));

	v->opts = *opts;
	int rc = loop_add_timer(opts->loop, LOOP_NEVER, LOOP_NORMAL, say_hello, v, &v->hello_timer, err);
	if (rc == 0)
		rc = loop_add_timer(opts->loop, LOOP_NEVER, LOOP_NORMAL, start_again, v, &v->again_timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(v);
	return 0;
}

void job_vm_free(struct job_vm *v)
{
	if (v == NULL)
		return;
	channel_free(v->channel);
	machine_free(v->machine);
	network_free(v->network);
	msg_fds_fini(&v->fds);
	loop_source_free(v->hello_timer);
	loop_source_free(v->again_timer);
	free(v);
}
