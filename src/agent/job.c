#include "agent/job.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/chores.h"
#include "agent/metrics.h"
#include "agent/shim_link.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "net/loop.h"

/* How much longer than its limit a job may take before its shim, which should have ended it, counts as hung. */
static const int64_t overdue_ns = 300 * NS_PER_S;
static const int64_t guard_ns = 10 * NS_PER_S; /* for a shim that was told to go */
enum { REVIVALS_MAX = 3 };

static const int64_t reconnect_ns = 200 * NS_PER_MS; /* to one that does not listen yet */

static void start_closing(struct agent_job *j);
static void continue_closing(struct agent_job *j);

/* --- the list, slots, moves --- */

static struct agent_job *job_new(struct agent *a, int64_t job_id, int64_t attempt, enum job_life life)
{
	struct agent_job *j = xcalloc(1, sizeof(*j));

	j->agent = a;
	j->job_id = job_id;
	j->attempt = attempt;
	j->life = life;
	j->shim.pidfd = -1;
	vm_shim_init(&j->prepared);
	j->result = (struct job_result){.exit_code = -1, .last_seq = -1};
	j->next = a->jobs;
	if (j->next != NULL)
		j->next->prev = j;
	a->jobs = j;
	return j;
}

static void forget_order(struct agent_job *j)
{
	j->order = NULL;
	secret_free(TAKE(j->log_token));
	arena_free(TAKE(j->arena));
}

static void job_free(struct agent_job *j)
{
	struct agent *a = j->agent;

	job_renew_stop(j);
	job_report_stop(j);
	forget_order(j);
	shim_link_free(j->link);
	loop_source_free(j->shim_exit);
	loop_source_free(j->guard);
	fd_close(&j->shim.pidfd);
	free(j->result.message);
	if (j->prev != NULL)
		j->prev->next = j->next;
	else
		a->jobs = j->next;
	if (j->next != NULL)
		j->next->prev = j->prev;
	free(j);
}

void jobs_show(struct agent *a)
{
	size_t active = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		active += job_life_has_slot(j->life);
	metrics_set(a->metrics, M_ACTIVE_JOBS, (double)active);
	metrics_set(a->metrics, M_VCPUS_FREE, (double)slots_vcpus_free(&a->slots));
	metrics_set(a->metrics, M_MEMORY_FREE, (double)slots_memory_mb_free(&a->slots) * 1048576);
}

static void take_slot(struct agent_job *j, int64_t vcpus, int64_t memory_mb)
{
	j->vcpus = vcpus;
	j->memory_mb = memory_mb;
	slots_take(&j->agent->slots, vcpus, memory_mb);
	jobs_show(j->agent);
}

/* The one place where a job moves. */
static void move(struct agent_job *j, enum job_life to)
{
	enum job_life from = j->life;

	assert(job_life_may_move(from, to));
	j->life = to;
	log_debug("job moves", F("job", j->job_id), F("attempt", j->attempt), F("from", job_life_text(from)),
		  F("to", job_life_text(to)));
	if (!job_life_is_renewed(to))
		job_renew_stop(j);
	if (job_life_has_slot(from) && !job_life_has_slot(to)) {
		slots_release(&j->agent->slots, j->vcpus, j->memory_mb);
		jobs_show(j->agent);
		j->agent->changed(j->agent);
	}
}

/* --- the end --- */

static void on_result_written(void *ctx, const struct err *err);

static void write_row(struct agent_job *j, enum state_stage stage, state_done_fn done)
{
	struct state_job row = {
		.job_id = j->job_id,
		.attempt = j->attempt,
		.fence = j->lease.fence,
		.vcpus = j->vcpus,
		.memory_mb = j->memory_mb,
		.stage = stage,
		.result = j->result,
	};

	assert(!j->busy);
	j->busy = true;
	state_put(j->agent->state, &row, done, j);
}

static void count_end(struct agent_job *j)
{
	static const struct {
		const char *status;
		size_t metric;
	} counters[] = {
		{"succeeded", M_JOBS_SUCCEEDED}, {"failed", M_JOBS_FAILED}, {"timed_out", M_JOBS_FAILED},
		{"cancelled", M_JOBS_CANCELLED}, {"lost", M_JOBS_LOST},
	};
	struct metrics *m = j->agent->metrics;

	for (size_t i = 0; i < ARRAY_LEN(counters); i++)
		if (strcmp(j->result.status, counters[i].status) == 0)
			metrics_inc(m, counters[i].metric);
	if (strcmp(j->result.status, "timed_out") == 0) {
		metrics_inc(m, M_JOB_TIMEOUTS);
		metrics_set(m, M_LAST_TIMEOUT, (double)clock_unix_ns() / (double)NS_PER_S);
	}
	if (j->result.last_seq > 0)
		metrics_add(m, M_LOG_ROWS, (uint64_t)j->result.last_seq);
}

/* There is a result: it is written down, and then reported. Takes nothing of `r`. */
static void job_end(struct agent_job *j, const struct job_result *r)
{
	j->result = *r;
	j->result.message = r->message != NULL ? xstrdup(r->message) : NULL;
	log_info("job ended", F("job", j->job_id), F("attempt", j->attempt), F("status", r->status),
		 F("reason", r->reason), F("exit_code", r->exit_code), F("signal", r->signal),
		 F("last_seq", r->last_seq), F("message", r->message != NULL ? r->message : ""));
	count_end(j);
	if (j->link != NULL) /* that it was not overdue is clear now; a shim that is to go keeps its guard */
		loop_source_free(TAKE(j->guard));
	move(j, LIFE_ENDED);
	write_row(j, STATE_ENDED, on_result_written);
}

static void end_plainly(struct agent_job *j, const char *status, const char *reason, const char *message)
{
	autofree char *copy = xstrdup(message);

	job_end(j, &(struct job_result){.status = status,
					.reason = reason,
					.message = copy,
					.exit_code = -1,
					/* It had no VM, so its whole log is empty; of a lost one nobody knows. */
					.last_seq = strcmp(status, "lost") == 0 ? -1 : 0});
}

static void end_lost(struct agent_job *j, const char *message)
{
	end_plainly(j, "lost", "vm_lost", message);
}

static void send(struct agent_job *j, enum shim_msg_type type);

static void on_result_written(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;

	j->busy = false;
	if (err != NULL)
		log_error("a job's result could not be written down: reporting it all the same", F("job", j->job_id),
			  F("error", err));
	else if (j->link != NULL)
		send(j, SHIM_EXIT_ACK);
	move(j, LIFE_REPORTING);
	job_report(j, REPORT_END);
}

void job_reported(struct agent_job *j)
{
	start_closing(j);
}

/* --- the shim as a process --- */

static void on_shim_exit(void *ctx, unsigned events)
{
	struct agent_job *j = ctx;
	struct process_exit how;
	struct err err = {0};

	(void)events;
	loop_source_free(TAKE(j->shim_exit));
	if (j->shim_is_child && process_wait(&j->shim, 0, &how, &err) < 0)
		log_warn("cannot reap a shim", F("job", j->job_id), F("error", &err));
	fd_close(&j->shim.pidfd);
	loop_source_free(TAKE(j->guard));
	/* What it said last may still be in the socket, whose end says the rest. */
	continue_closing(j);
}

static void watch_shim(struct agent_job *j)
{
	struct err err = {0};

	if (loop_add_fd(j->agent->loop, j->shim.pidfd, LOOP_READ, LOOP_NORMAL, on_shim_exit, j, &j->shim_exit, &err) <
	    0)
		log_error("cannot watch a shim", F("job", j->job_id), F("error", &err));
}

static void kill_shim(struct agent_job *j)
{
	struct err err = {0};

	if (j->shim.pidfd >= 0 && process_signal(&j->shim, SIGKILL, &err) < 0)
		log_error("cannot kill a shim", F("job", j->job_id), F("error", &err));
}

static void on_guard(void *ctx)
{
	struct agent_job *j = ctx;

	log_warn("a shim did not go when it was told to: killing it, and its VM with it", F("job", j->job_id));
	kill_shim(j);
}

static void arm_guard(struct agent_job *j, loop_fn fn, int64_t wait_ns)
{
	struct err err = {0};

	loop_source_free(TAKE(j->guard));
	if (loop_add_timer(j->agent->loop, clock_monotonic_ns() + wait_ns, LOOP_NORMAL, fn, j, &j->guard, &err) < 0)
		out_of_memory(); /* a timer needs nothing else */
}

static void drop_link(struct agent_job *j)
{
	shim_link_free(TAKE(j->link));
	/* Without an agent, or with its work done, it goes by itself. */
	if (j->shim_exit != NULL)
		arm_guard(j, on_guard, guard_ns);
}

/* --- messages to the shim --- */

static void send_msg(struct agent_job *j, const struct shim_msg *m)
{
	struct err err = {0};

	if (j->link == NULL || shim_link_send(j->link, m, NULL, 0, &err) == 0)
		return;
	/* Gone: the link says so in a moment. Deaf: it is no use any more, and the link then says that it is gone. */
	log_warn("a shim cannot be told: it goes", F("job", j->job_id), F("error", &err));
	kill_shim(j);
}

static void send(struct agent_job *j, enum shim_msg_type type)
{
	send_msg(j, &(struct shim_msg){.type = type});
}

static void send_cancel(struct agent_job *j)
{
	send_msg(j, &(struct shim_msg){.type = SHIM_CANCEL, .cancel = {.grace_ns = -1}});
}

void job_lease_extended(struct agent_job *j)
{
	if (j->link != NULL && j->life >= LIFE_ADOPTED && j->life <= LIFE_RUNNING)
		send_msg(j,
			 &(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {.deadline_ns = j->lease.deadline_ns}});
}

static int64_t timeout_of(const struct agent_job *j)
{
	return j->order->timeout_seconds > 0 ? j->order->timeout_seconds * NS_PER_S : j->agent->settings->job_timeout;
}

static int start_shim(struct agent_job *j, struct err *err)
{
	const struct job_assignment *o = j->order;
	const struct agent_settings *s = j->agent->settings;
	autofree char *log_url = s->log_sink_url != NULL ? http_url(s->log_sink_url, "/logs") : NULL;
	struct shim_msg m = {
		.type = SHIM_START,
		.start =
			{
				.job_id = j->job_id,
				.attempt = j->attempt,
				.fence = j->lease.fence,
				.org_id = o->org_id,
				.repo_id = o->repository.id,
				.agent_id = j->agent->id,
				.argv = o->argv,
				.env = o->env,
				.vcpus = o->vcpus,
				.memory_mb = o->memory_mb,
				.accel = j->agent->accel,
				.tsc_khz = j->agent->tsc_khz,
				.vmm = s->qemu_bin,
				.timeout_ns = timeout_of(j),
				.grace_ns = s->vm_shutdown_grace,
				.deadline_ns = j->lease.deadline_ns,
				.log_url = log_url,
				.log_token = j->log_token,
			},
	};

	return shim_link_send(j->link, &m, j->prepared.start_fds, SHIM_START_FD_COUNT, err);
}

/* --- messages from the shim --- */

static void on_hello(struct agent_job *j, const struct shim_hello *h);

static void on_booted(struct agent_job *j, const struct shim_booted *b)
{
	if (j->life != LIFE_BOOTING && j->life != LIFE_ADOPTED)
		return;
	j->times.vmm_started_ns = b->vmm_started_ns;
	j->times.answered_ns = b->guest_answered_ns;
	j->times.kernel_ns = b->kernel_ns;
	(void)snprintf(j->times.accel, sizeof(j->times.accel), "%s", b->accel != NULL ? b->accel : "");
	log_info("vm is up", F("job", j->job_id), F("accel", j->times.accel),
		 F("ms", (b->guest_answered_ns - b->vmm_started_ns) / NS_PER_MS));
	move(j, LIFE_CHECKING);
	/* The fence once more, and only then the secrets. */
	job_renew(j, true);
}

static void on_running(struct agent_job *j, const struct shim_running *r)
{
	if (j->life != LIFE_CHECKING && j->life != LIFE_GOING && j->life != LIFE_ADOPTED)
		return;
	j->times.running_ns = r->started_ns;
	move(j, LIFE_RUNNING);
	job_report(j, REPORT_RUNNING);
}

static struct job_result result_of(const struct shim_exited *e)
{
	static const char *const statuses[SHIM_REASON_COUNT] = {
		[SHIM_REASON_EXIT] = "failed",	       [SHIM_REASON_SIGNAL] = "failed",
		[SHIM_REASON_OOM] = "failed",	       [SHIM_REASON_TIMEOUT] = "timed_out",
		[SHIM_REASON_CANCELLED] = "cancelled", [SHIM_REASON_VM_LOST] = "lost",
		[SHIM_REASON_GUEST_LOST] = "failed",   [SHIM_REASON_START_FAILED] = "failed",
		[SHIM_REASON_LEASE_LOST] = "lost",
	};
	enum shim_reason reason = (enum shim_reason)e->reason;
	bool good = reason == SHIM_REASON_EXIT && e->exit_code == 0;

	return (struct job_result){
		.status = good ? "succeeded" : statuses[reason],
		/* Only the shim and the agent speak of lost leases. */
		.reason = shim_reason_name(reason == SHIM_REASON_LEASE_LOST ? SHIM_REASON_VM_LOST : reason),
		.exit_code = e->exit_code,
		.signal = e->signal,
		.last_seq = e->last_seq,
	};
}

static void on_exited(struct agent_job *j, const struct shim_exited *e)
{
	if (j->life == LIFE_ENDED)
		return; /* acknowledged when it is written down */
	if (j->life == LIFE_REPORTING || j->life == LIFE_CLOSING) {
		send(j, SHIM_EXIT_ACK);
		return;
	}
	if (j->life == LIFE_LOST) {
		send(j, SHIM_EXIT_ACK);
		drop_link(j);
		start_closing(j);
		return;
	}
	struct metrics *m = j->agent->metrics;
	metrics_set(m, M_JOB_CPU_SECONDS, (double)(e->usage.user_ns + e->usage.system_ns) / (double)NS_PER_S);
	metrics_set(m, M_JOB_MEMORY_BYTES, (double)e->usage.max_rss_bytes);
	metrics_observe_ns(m, M_JOB_DURATION, e->usage.wall_ns);
	struct job_result r = result_of(e);
	autofree char *message = j->give_back	      ? xstrdup("the agent was stopped")
				 : e->message != NULL ? xstrdup(e->message)
						      : NULL;
	r.message = message;
	job_end(j, &r);
}

static void on_message(void *ctx, const struct shim_msg *m)
{
	struct agent_job *j = ctx;

	switch (m->type) {
	case SHIM_HELLO:
		on_hello(j, &m->hello);
		break;
	case SHIM_BOOTED:
		on_booted(j, &m->booted);
		break;
	case SHIM_RUNNING:
		on_running(j, &m->running);
		break;
	case SHIM_EXITED:
		on_exited(j, &m->exited);
		break;
	case SHIM_SHIPPED: /* it goes now, and the link says so */
	case SHIM_START:
	case SHIM_GO:
	case SHIM_DEADLINE:
	case SHIM_CANCEL:
	case SHIM_DESTROY:
	case SHIM_EXIT_ACK:
	case SHIM_RESUME:
		break;
	}
}

static void on_gone(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;

	if (err != NULL) {
		log_error("a shim talks nonsense: it goes, and its VM with it", F("job", j->job_id), F("error", err));
		kill_shim(j);
	}
	drop_link(j);
	if (j->life == LIFE_LOST)
		start_closing(j);
	else if (j->life == LIFE_CLOSING)
		continue_closing(j);
	else if (j->life != LIFE_ENDED && j->life != LIFE_REPORTING)
		end_lost(j, j->give_back ? "the agent was stopped" : "the shim died, and the VM with it");
}

static const struct shim_link_ops link_ops = {on_message, on_gone};

static int take_shim(struct agent_job *j, struct err *err)
{
	j->shim = j->prepared.process;
	j->prepared.process.pidfd = -1;
	j->shim_is_child = true;
	watch_shim(j);
	return shim_link_new(j->agent->loop, fd_take(&j->prepared.socket), &link_ops, j, &j->link, err);
}

/* --- lost --- */

void job_lost(struct agent_job *j, const char *why)
{
	job_renew_stop(j);
	/* With a result nothing runs any more: whether the control plane still wants it, the report will show. */
	if (j->life == LIFE_ENDED || j->life == LIFE_REPORTING || j->life == LIFE_LOST || j->life == LIFE_CLOSING)
		return;
	log_warn("a lease is lost: its VM is destroyed", F("job", j->job_id), F("attempt", j->attempt),
		 F("fence", j->lease.fence), F("life", job_life_text(j->life)), F("why", why));
	metrics_inc(j->agent->metrics, M_LEASES_LOST);
	job_report_stop(j);
	move(j, LIFE_LOST);
	if (j->link != NULL) {
		send(j, SHIM_DESTROY);
		arm_guard(j, on_guard, guard_ns);
	} else if (!j->busy) {
		start_closing(j);
	}
}

/* --- closing --- */

static void on_row_deleted(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;
	struct agent *a = j->agent;

	/* Then the next agent finds it, reports it once more and is told that it is old. */
	if (err != NULL)
		log_warn("a job's row could not be deleted", F("job", j->job_id), F("error", err));
	job_free(j);
	a->changed(a);
}

/* Nothing of an acknowledged log is lost with the shim that should have shipped it. */
static void close_folder(void *ctx)
{
	struct agent_job *j = ctx;
	const struct vm_host *host = &j->agent->host;
	char name[VM_FOLDER_NAME_SIZE];

	(void)vm_folder_name(j->job_id, j->attempt, name);
	if (j->result.last_seq > 0 && j->revivals < REVIVALS_MAX && vm_folder_has_spool(host->vms_fd, name)) {
		(void)!vm_folder_revive(host, name, &j->prepared, &j->work_err);
		return;
	}
	/* After so many tries it is left to the next agent. */
	if (j->result.last_seq > 0 && vm_folder_has_spool(host->vms_fd, name))
		(void)err_set(&j->work_err, ERR_IO, "it holds log lines that could not be shipped");
	else if (vm_folder_remove(host->vms_fd, name, &j->work_err) == VM_FOLDER_BUSY)
		(void)err_set(&j->work_err, ERR_CONFLICT, "a shim lives in it");
}

static void on_folder_closed(void *ctx)
{
	struct agent_job *j = ctx;

	if (j->prepared.socket >= 0) {
		j->busy = false;
		j->revivals++;
		log_info("a shim died before it had shipped its log: another ships the rest", F("job", j->job_id));
		if (take_shim(j, &j->work_err) == 0)
			send(j, SHIM_RESUME);
		return;
	}
	if (j->work_err.code != 0)
		log_warn("a VM's folder could not be removed: the next start tries again", F("job", j->job_id),
			 F("error", &j->work_err));
	state_delete(j->agent->state, j->job_id, j->attempt, on_row_deleted, j);
}

/* When the shim is gone and nothing is under way: folder, row, record, in this order. */
static void continue_closing(struct agent_job *j)
{
	if (j->life != LIFE_CLOSING || j->busy || j->link != NULL || j->shim_exit != NULL)
		return;
	j->busy = true;
	j->work_err = (struct err){0};
	loop_source_free(TAKE(j->guard));
	if (!chores_give(j->agent->chores, close_folder, on_folder_closed, j))
		on_folder_closed(j);
}

static void start_closing(struct agent_job *j)
{
	job_report_stop(j);
	move(j, LIFE_CLOSING);
	j->agent->changed(j->agent);
	continue_closing(j);
}

/* --- the beginning --- */

static bool end_early(struct agent_job *j)
{
	if (j->life == LIFE_LOST)
		start_closing(j);
	else if (j->give_back)
		end_lost(j, "the agent was stopped");
	else if (j->cancelled)
		end_plainly(j, "cancelled", "cancelled", "cancelled before its VM was started");
	else
		return false;
	return true;
}

static void prepare(void *ctx)
{
	struct agent_job *j = ctx;

	(void)!vm_folder_start(&j->agent->host,
			       &(struct vm_order){.job_id = j->job_id,
						  .attempt = j->attempt,
						  .image = j->order->image,
						  .disk_mb = j->order->disk_mb},
			       &j->prepared, &j->work_err);
}

/* What is the job's own fault fails it; what is this host's gives it back. */
static void end_unprepared(struct agent_job *j, const struct err *err)
{
	bool own = err->code == ERR_NOT_FOUND || err->code == ERR_INVALID || err->code == ERR_INVALID_FIELD ||
		   err->code == ERR_TOO_LARGE || err->code == ERR_UNSUPPORTED;

	log_error("a job cannot be started here", F("job", j->job_id), F("error", err));
	if (own)
		end_plainly(j, "failed", "start_failed", err->msg);
	else
		end_plainly(j, "lost", "start_failed", err->msg);
}

static void on_overdue(void *ctx)
{
	struct agent_job *j = ctx;

	log_error("a job is far over its limit: its shim hangs, killing it", F("job", j->job_id));
	kill_shim(j);
}

static void give_orders(struct agent_job *j)
{
	struct err err = {0};

	if (start_shim(j, &err) == 0) {
		metrics_inc(j->agent->metrics, M_JOBS_STARTED);
		move(j, LIFE_BOOTING);
		arm_guard(j, on_overdue, timeout_of(j) + j->agent->settings->vm_shutdown_grace + overdue_ns);
		job_report(j, REPORT_STARTING);
	} else {
		drop_link(j);
		end_unprepared(j, &err);
	}
}

static void on_prepared(void *ctx)
{
	struct agent_job *j = ctx;
	struct err err = j->work_err;

	j->busy = false;
	if (err.code == 0)
		(void)!take_shim(j, &err);
	if (err.code == 0 && j->life == LIFE_PREPARING && !j->give_back && !j->cancelled) {
		give_orders(j);
	} else {
		/* A shim without orders ends when its agent lets go of it. */
		drop_link(j);
		if (!end_early(j))
			end_unprepared(j, &err);
	}
	vm_shim_fini(&j->prepared);
	forget_order(j);
}

static void on_recorded(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;

	j->busy = false;
	if (end_early(j))
		return;
	if (err != NULL) {
		end_unprepared(j, err);
		return;
	}
	move(j, LIFE_PREPARING);
	j->busy = chores_give(j->agent->chores, prepare, on_prepared, j);
	if (!j->busy)
		end_lost(j, "this host has too much to do");
}

static void send_go(struct agent_job *j, const struct js *secret_env)
{
	autoptr(arena) arena = arena_new();
	struct shim_msg m = {.type = SHIM_GO};
	size_t room = 0;
	const char *name = NULL;
	const struct js *value = NULL;

	for (void *iter = NULL; js_each(secret_env, &iter, &name, &value);)
		room++;
	m.go.items = arena_calloc(arena, room, sizeof(*m.go.items));
	for (void *iter = NULL; js_each(secret_env, &iter, &name, &value);) {
		const char *text = js_text(value, "");
		m.go.items[m.go.count++] = (struct shim_secret_env){name, secret_new(text, strlen(text))};
	}
	send_msg(j, &m);
	for (size_t i = 0; i < m.go.count; i++)
		secret_free(m.go.items[i].value);
}

void job_fence_checked(struct agent_job *j, const struct js *secret_env)
{
	if (j->life == LIFE_LEASED) {
		if (end_early(j))
			return;
		move(j, LIFE_RECORDING);
		write_row(j, STATE_STARTED, on_recorded);
	} else if (j->life == LIFE_CHECKING && j->secrets_asked) {
		send_go(j, secret_env);
		move(j, LIFE_GOING);
	}
}

void job_begin(struct agent *a, struct arena *arena, const struct lease_answer *answer)
{
	const struct job_assignment *o = &answer->job;
	struct agent_job *j = job_new(a, o->job_id, o->attempt, LIFE_LEASED);
	int64_t now = clock_monotonic_ns();

	j->arena = arena;
	j->order = o;
	if (o->log_token != NULL)
		j->log_token = secret_new(o->log_token, strlen(o->log_token));
	/* Provisional until the first renewal, whose answer counts from when that is sent. */
	j->lease = (struct lease){.fence = answer->fence_token,
				  .ttl_ns = answer->lease_ttl_seconds * NS_PER_S,
				  .deadline_ns = now + answer->lease_ttl_seconds * NS_PER_S};
	j->times.leased_ns = now;
	take_slot(j, o->vcpus, o->memory_mb);
	log_info("job leased", F("job", j->job_id), F("attempt", j->attempt), F("fence", j->lease.fence),
		 F("image", o->image), F("vcpus", o->vcpus), F("memory_mb", o->memory_mb));
	job_renew(j, false);
}

/* --- what a former agent left --- */

static void resume_without_shim(struct agent_job *j)
{
	if (j->result.status != NULL) {
		move(j, LIFE_REPORTING);
		job_report(j, REPORT_END);
	} else if (j->lease.fence != 0) {
		end_lost(j, "its VM died while no agent was there");
	} else {
		start_closing(j); /* a folder that nobody knows */
	}
}

/* The shim's pid is kept as a pidfd, so that it can be killed and its end be seen; it is not our child. */
static void hold_adopted(struct agent_job *j, pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		return; /* it has just ended: the link says so */
	j->shim = (struct process){.pid = pid, .pidfd = fd};
	watch_shim(j);
}

static void on_hello(struct agent_job *j, const struct shim_hello *h)
{
	if (j->shim_is_child)
		return;
	if (j->shim.pidfd < 0)
		hold_adopted(j, (pid_t)h->pid);
	if (j->life != LIFE_ADOPTED)
		return;
	if (h->job_id != j->job_id || h->attempt != j->attempt) {
		/* It was never given its orders, and ends without an agent. */
		drop_link(j);
		resume_without_shim(j);
		return;
	}
	if (j->vcpus == 0)
		take_slot(j, h->vcpus, h->memory_mb);
	j->lease = lease_adopted(h->fence, h->deadline_ns, clock_monotonic_ns());
	metrics_inc(j->agent->metrics, M_JOBS_ADOPTED);
	log_info("job adopted", F("job", j->job_id), F("attempt", j->attempt), F("fence", h->fence), F("pid", h->pid));
	job_renew(j, false);
	j->agent->changed(j->agent);
}

static void connect_again(void *ctx);

static void resume_with(struct agent_job *j, int socket)
{
	struct err err = {0};

	loop_source_free(TAKE(j->guard));
	if (shim_link_new(j->agent->loop, socket, &link_ops, j, &j->link, &err) < 0)
		log_error("cannot talk to a shim", F("job", j->job_id), F("error", &err));
	/* The result is known: what the shim still has to do is ship. */
	if (j->result.status != NULL) {
		move(j, LIFE_REPORTING);
		job_report(j, REPORT_END);
	}
}

static void try_connect(struct agent_job *j)
{
	char name[VM_FOLDER_NAME_SIZE];
	struct err err = {0};
	int socket = -1;

	int rc = vm_folder_connect(j->agent->host.vms_fd, vm_folder_name(j->job_id, j->attempt, name), &socket, &err);
	if (rc == VM_FOLDER_BUSY)
		arm_guard(j, connect_again, reconnect_ns);
	else if (rc == 0)
		resume_with(j, socket);
	else
		resume_without_shim(j);
}

static void connect_again(void *ctx)
{
	try_connect(ctx);
}

void job_resume(struct agent *a, int64_t job_id, int64_t attempt, const struct state_job *row)
{
	struct agent_job *j = job_new(a, job_id, attempt, LIFE_ADOPTED);

	if (row != NULL) {
		j->lease.fence = row->fence;
		j->result = row->result;
		j->result.message = row->result.message != NULL ? xstrdup(row->result.message) : NULL;
		take_slot(j, row->vcpus, row->memory_mb);
	}
	try_connect(j);
}

/* --- all of them --- */

static void job_cancel(struct agent_job *j)
{
	log_info("job is to be cancelled", F("job", j->job_id));
	j->cancelled = true;
	/* Before there is a shim, the next step of the beginning ends it. */
	if (j->link != NULL)
		send_cancel(j);
}

bool jobs_command(struct agent *a, const struct agent_command *c)
{
	for (struct agent_job *j = a->jobs; j != NULL; j = j->next) {
		if (j->job_id != c->job_id || j->lease.fence != c->fence_token || strcmp(c->type, "cancel") != 0)
			continue;
		if (j->cancelled || j->life >= LIFE_ENDED)
			return false;
		job_cancel(j);
		return true;
	}
	return false;
}

static void give_back(struct agent_job *j)
{
	j->give_back = true;
	if (j->life == LIFE_LEASED)
		(void)end_early(j);
	else if (j->link != NULL && j->life < LIFE_ENDED) {
		send(j, SHIM_DESTROY);
		arm_guard(j, on_guard, guard_ns);
	}
}

void jobs_give_back(struct agent *a)
{
	for (struct agent_job *j = a->jobs; j != NULL; j = j->next)
		give_back(j);
}

size_t jobs_needed(const struct agent *a)
{
	size_t count = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		count += j->life != LIFE_CLOSING;
	return count;
}

size_t jobs_count(const struct agent *a)
{
	size_t count = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		count++;
	return count;
}

size_t jobs_unclear(const struct agent *a)
{
	size_t count = 0;

	for (const struct agent_job *j = a->jobs; j != NULL; j = j->next)
		count += j->life == LIFE_ADOPTED && j->vcpus == 0;
	return count;
}

void jobs_forget(struct agent *a)
{
	for (struct agent_job *j = a->jobs, *next = NULL; j != NULL; j = next) {
		next = j->next;
		vm_shim_fini(&j->prepared);
		job_free(j);
	}
}
