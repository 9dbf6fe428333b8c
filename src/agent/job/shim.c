#include "agent/job/shim.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/shim_link.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/names.h"
#include "net/http_client.h"
#include "net/loop.h"

static const int64_t guard_ns = 10 * NS_PER_S; /* for a shim that was told to go */

/* --- as a process --- */

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
	j->events->shim_gone(j);
}

static void watch(struct agent_job *j)
{
	struct err err = {0};

	if (loop_add_fd(j->agent->loop, j->shim.pidfd, LOOP_READ, LOOP_NORMAL, on_shim_exit, j, &j->shim_exit, &err) <
	    0)
		log_error("cannot watch a shim", F("job", j->job_id), F("error", &err));
}

void job_shim_hold(struct agent_job *j, pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		return; /* it has just ended: the link says so */
	j->shim = (struct process){.pid = pid, .pidfd = fd};
	watch(j);
}

void job_shim_kill(struct agent_job *j)
{
	struct err err = {0};

	if (j->shim.pidfd >= 0 && process_signal(&j->shim, SIGKILL, &err) < 0)
		log_error("cannot kill a shim", F("job", j->job_id), F("error", &err));
}

void job_shim_guard(struct agent_job *j, loop_fn fn, int64_t wait_ns)
{
	struct err err = {0};

	loop_source_free(TAKE(j->guard));
	if (loop_add_timer(j->agent->loop, clock_monotonic_ns() + wait_ns, LOOP_NORMAL, fn, j, &j->guard, &err) < 0)
		out_of_memory(); /* a timer needs nothing else */
}

static void overstays(void *ctx)
{
	struct agent_job *j = ctx;

	log_warn("a shim did not go when it was told to: killing it, and its VM with it", F("job", j->job_id));
	job_shim_kill(j);
}

void job_shim_expect_end(struct agent_job *j)
{
	job_shim_guard(j, overstays, guard_ns);
}

void job_shim_drop(struct agent_job *j)
{
	shim_link_free(TAKE(j->link));
	/* Without an agent, or with its work done, it goes by itself. */
	if (j->shim_exit != NULL)
		job_shim_expect_end(j);
}

/* --- what it is told --- */

static void send_msg(struct agent_job *j, const struct shim_msg *m)
{
	struct err err = {0};

	if (j->link == NULL || shim_link_send(j->link, m, NULL, 0, &err) == 0)
		return;
	/* Gone: the link says so in a moment. Deaf: it is no use any more, and the link then says that it is gone. */
	log_warn("a shim cannot be told: it goes", F("job", j->job_id), F("error", &err));
	job_shim_kill(j);
}

void job_shim_send(struct agent_job *j, enum shim_msg_type type)
{
	send_msg(j, &(struct shim_msg){.type = type});
}

void job_shim_cancel(struct agent_job *j)
{
	send_msg(j, &(struct shim_msg){.type = SHIM_CANCEL, .cancel = {.grace_ns = -1}});
}

void job_shim_extend(struct agent_job *j)
{
	if (j->link != NULL && (j->from_pool || j->life >= LIFE_ADOPTED) && j->life <= LIFE_RUNNING)
		send_msg(j, &(struct shim_msg){.type = SHIM_DEADLINE,
					       .deadline = {.deadline_ns = j->lease.deadline_ns, .counts = 1}});
}

static char *log_url(const struct agent_job *j)
{
	const char *base = j->agent->settings->log_sink_url;

	return base != NULL ? http_url(base, "/logs") : NULL;
}

void job_shim_show_pipeline(struct agent_job *j, int64_t deadline_ns)
{
	autofree char *url = log_url(j);

	send_msg(j,
		 &(struct shim_msg){.type = SHIM_DEADLINE, .deadline = {.deadline_ns = deadline_ns, .log_url = url}});
}

void job_shim_session(struct agent_job *j, const struct agent_command *c)
{
	autoptr(arena) arena = arena_new();
	struct exec_request q = {0};
	struct err err = {0};

	if (c->session == NULL || js_decode(c->exec, &exec_request_shape, arena, &q, &err) < 0) {
		log_warn("a session was asked for that makes no sense", F("job", j->job_id), F("error", &err));
		return;
	}
	send_msg(j, &(struct shim_msg){.type = SHIM_SESSION,
				       .session = {.id = c->session,
						   .argv = q.argv,
						   .env = q.env,
						   .cwd = q.cwd,
						   .stdin_open = q.stdin_open,
						   .rows = q.tty.rows,
						   .cols = q.tty.cols}});
}

/* Of two machines' clocks; good enough for people. */
static int64_t queued_ns(const struct agent_job *j)
{
	int64_t since_lease = clock_monotonic_ns() - j->times.leased_ns;
	int64_t queued = clock_unix_ns() - since_lease - j->order->payload_received_at;

	return j->order->payload_received_at > 0 && queued >= 0 ? queued : -1;
}

int64_t job_timeout(const struct agent_job *j)
{
	return j->order->timeout_seconds > 0 ? j->order->timeout_seconds * NS_PER_S : j->agent->settings->job_timeout;
}

int job_shim_start(struct agent_job *j, struct err *err)
{
	const struct job_assignment *o = j->order;
	const struct agent_settings *s = j->agent->settings;
	autofree char *url = log_url(j);
	int64_t network = SHIM_NETWORK_NONE;

	/* What it does not know may mean less than open, so it is not taken for it. */
	if (o->network != NULL && strcmp(o->network, JOB_NETWORK_OPEN) == 0)
		network = SHIM_NETWORK_OPEN;
	else if (o->network != NULL && job_network_check(str_c(o->network), err) < 0)
		return -ERR_INVALID_FIELD;
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
				.template = j->template.name[0] != '\0' ? j->template.name : NULL,
				.timeout_ns = job_timeout(j),
				.grace_ns = s->vm_shutdown_grace,
				.deadline_ns = j->lease.deadline_ns,
				.log_url = url,
				.log_token = j->log_token,
				.control_url = s->control_plane_url,
				.job_token = j->job_token,
				.workdir = o->extras.workdir,
				.inputs = o->extras.inputs,
				.outputs = o->extras.outputs,
				.session = o->extras.session,
				.has_stdin = o->extras.stdin_open,
				.tty_rows = o->extras.rows,
				.tty_cols = o->extras.cols,
				.queued_ns = queued_ns(j),
				.network = network,
				.services_token = j->services_token,
			},
	};

	return shim_link_send(j->link, &m, j->prepared.start_fds, j->prepared.start_fd_count, err);
}

void job_shim_go(struct agent_job *j, const struct js *secret_env)
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

/* --- what it says --- */

static void on_message(void *ctx, const struct shim_msg *m)
{
	struct agent_job *j = ctx;

	j->events->shim_says(j, m);
}

static void on_gone(void *ctx, const struct err *err)
{
	struct agent_job *j = ctx;

	if (err != NULL) {
		log_error("a shim talks nonsense: it goes, and its VM with it", F("job", j->job_id), F("error", err));
		job_shim_kill(j);
	}
	job_shim_drop(j);
	j->events->shim_silent(j);
}

static const struct shim_link_ops link_ops = {on_message, on_gone};

int job_shim_take(struct agent_job *j, struct err *err)
{
	j->shim = j->prepared.process;
	j->prepared.process.pidfd = -1;
	j->shim_is_child = true;
	watch(j);
	return shim_link_new(j->agent->loop, fd_take(&j->prepared.socket), &link_ops, j, &j->link, err);
}

int job_shim_adopt(struct agent_job *j, int socket, struct err *err)
{
	return shim_link_new(j->agent->loop, socket, &link_ops, j, &j->link, err);
}
