/*
 * Whole lives of jobs, with a control plane that is a server of this test, and a shim that is this very program,
 * started by the agent as it starts the real one.
 */
#include "agent/job/job.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/chores.h"
#include "agent/control_client.h"
#include "agent/job/renew.h"
#include "agent/metrics.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "net/msg.h"

/* --- the shim: does as the job's command says --- */

struct fake_shim {
	int agent;
	int listener;
	struct shim_hello hello;
	bool ran;
	bool ended;
	struct shim_exited exited;
	char behaviour[32];
};

static void say(struct fake_shim *f, const struct shim_msg *m)
{
	autovar(buf) out = {0};
	struct err err = {0};

	if (shim_msg_encode(m, &out, &err) < 0 || msg_send(f->agent, buf_str(&out), NULL, 0, &err) < 0)
		_exit(1);
}

static void say_exited(struct fake_shim *f, enum shim_reason reason, int64_t code)
{
	f->ended = true;
	f->exited = (struct shim_exited){.reason = reason,
					 .exit_code = code,
					 .last_seq = 5,
					 .message = "it ended",
					 .shipping = {.batches = 1, .errors = 1},
					 .served = {.each = {[SHIM_SERVICE_LOGS] = {.requests = 2, .sent = 30}},
						    .refused = {[SHIM_REFUSAL_AWAY] = 1}}};
	say(f, &(struct shim_msg){.type = SHIM_EXITED, .exited = f->exited});
}

static void tell_all(struct fake_shim *f)
{
	say(f, &(struct shim_msg){.type = SHIM_HELLO, .hello = f->hello});
	if (f->ran) {
		say(f, &(struct shim_msg){.type = SHIM_BOOTED, .booted = {.accel = "tcg"}});
		say(f, &(struct shim_msg){.type = SHIM_RUNNING});
	}
	if (f->ended)
		say(f, &(struct shim_msg){.type = SHIM_EXITED, .exited = f->exited});
}

static void on_start(struct fake_shim *f, const struct shim_start *s)
{
	f->hello = (struct shim_hello){.pid = getpid(),
				       .job_id = s->job_id,
				       .attempt = s->attempt,
				       .fence = s->fence,
				       .vcpus = s->vcpus,
				       .memory_mb = s->memory_mb,
				       .deadline_ns = s->deadline_ns};
	(void)snprintf(f->behaviour, sizeof(f->behaviour), "%s", s->argv.items[0]);
	if (strcmp(f->behaviour, "nonsense") == 0)
		(void)!msg_send(f->agent, STR("\xff\xff garbage"), NULL, 0, NULL);
	else if (strcmp(f->behaviour, "never-boots") != 0)
		say(f, &(struct shim_msg){.type = SHIM_BOOTED, .booted = {.accel = "tcg"}});
}

/* The job may exit with what its secret says, which shows that it got it. */
static void on_go(struct fake_shim *f, const struct shim_go *g)
{
	int64_t code = 0;

	f->ran = true;
	say(f, &(struct shim_msg){.type = SHIM_RUNNING});
	if (strcmp(f->behaviour, "exit-by-secret") == 0 && g->count == 1 &&
	    str_to_i64(secret_reveal(g->items[0].value), "code", 0, 255, &code, NULL) == 0)
		say_exited(f, SHIM_REASON_EXIT, code);
}

/* All shipped; or dead before that, with lines in its spool. */
static void leave(struct fake_shim *f)
{
	struct err err = {0};

	if (strncmp(f->behaviour, "dies-", 5) == 0)
		_exit(file_write_atomic(SHIM_FD_VMDIR, SHIM_SHIP_FILE, str_c(f->behaviour), 0600, &err) == 0 ? 9 : 1);
	say(f, &(struct shim_msg){.type = SHIM_SHIPPED, .shipped = {.batches = 3, .errors = 1}});
	_exit(0);
}

/* The order to ship says by what its shim had died: some causes stay. */
static void ship_the_rest(void)
{
	autovar(buf) text = {0};
	struct err err = {0};

	if (file_read(SHIM_FD_VMDIR, SHIM_SHIP_FILE, 64, &text, &err) == 0 &&
	    str_eq(buf_str(&text), STR("dies-each-time")))
		_exit(9);
	_exit(unlinkat(SHIM_FD_VMDIR, SHIM_SHIP_FILE, 0) == 0 ? 0 : 1);
}

static void on_order(struct fake_shim *f, const struct shim_msg *m)
{
	if (m->type == SHIM_START)
		on_start(f, &m->start);
	else if (m->type == SHIM_GO)
		on_go(f, &m->go);
	else if (m->type == SHIM_CANCEL && !f->ended)
		say_exited(f, SHIM_REASON_CANCELLED, -1);
	else if (m->type == SHIM_DESTROY && !f->ended)
		say_exited(f, SHIM_REASON_LEASE_LOST, -1);
	else if (m->type == SHIM_EXIT_ACK)
		leave(f);
	else if (m->type == SHIM_RESUME)
		ship_the_rest();
}

static void listen_to_agent(struct fake_shim *f)
{
	autovar(buf) in = {0};
	autovar(msg_fds) fds = {0};
	autoptr(arena) arena = arena_new();
	autovar(shim_msg) m = {0};
	struct err err = {0};

	int rc = msg_recv(f->agent, &in, &fds, &err);
	if (rc == MSG_CLOSED) {
		fd_close(&f->agent);
		if (f->hello.job_id == 0)
			_exit(0); /* no orders, no agent */
	} else if (rc == 0 && shim_msg_decode(buf_str(&in), arena, &m, &err) == 0) {
		on_order(f, &m);
	}
}

static int shim_main(void)
{
	struct fake_shim f = {.agent = SHIM_FD_AGENT, .listener = -1};
	struct err err = {0};

	if (msg_listen(SHIM_FD_VMDIR, SHIM_SOCKET, &f.listener, &err) < 0)
		return 1;
	tell_all(&f);
	for (;;) {
		struct pollfd fds[] = {{.fd = f.agent, .events = POLLIN}, {.fd = f.listener, .events = POLLIN}};
		/* Nobody waits that long for it: it must not outlive the test by much. */
		if (poll(fds, 2, 60000) <= 0)
			return 1;
		if (fds[0].revents != 0)
			listen_to_agent(&f);
		if (fds[1].revents != 0 && msg_accept(f.listener, &f.agent, &err) == 0)
			tell_all(&f);
	}
}

/* --- the control plane --- */

struct plane {
	struct http_server *server;
	pthread_mutex_t lock; /* guards what follows */
	struct buf told;      /* "starting running failed(7) " */
	unsigned renewals;
	unsigned secrets_given;
	unsigned refuse_renewal; /* the n-th, from 1; 0: none */
	unsigned busy;		 /* so many statuses get a 503 first */
	unsigned cancel;	 /* not 0: renewals bring that command */
};

static int on_renew(void *ctx, struct http_request *req, struct err *err)
{
	struct plane *p = ctx;
	struct renew_request q;
	struct agent_command cancel = {.type = "cancel"};
	autoptr(js) secrets = js_new_object();

	js_set(secrets, "CODE", js_new_text("7"));
	int rc = http_body_decode(req, &renew_request_shape, &q, err);
	if (rc < 0)
		return rc;
	(void)pthread_mutex_lock(&p->lock);
	bool refused = ++p->renewals == p->refuse_renewal || q.fence_token != 9;
	if (!refused && q.want_secrets)
		p->secrets_given++;
	bool wants_cancel = p->cancel != 0;
	(void)pthread_mutex_unlock(&p->lock);
	if (refused)
		return err_set(err, ERR_STALE_FENCE, "that lease is over");
	cancel.job_id = q.job_id;
	cancel.fence_token = q.fence_token;
	struct renew_answer a = {.renewed = true,
				 .lease_ttl_seconds = 30,
				 .commands = {&cancel, wants_cancel ? 1 : 0},
				 .secret_env = q.want_secrets ? secrets : NULL};
	return http_reply_shape(req, 200, &renew_answer_shape, &a);
}

static int on_status(void *ctx, struct http_request *req, struct err *err)
{
	struct plane *p = ctx;
	const struct js *body = NULL;
	struct status_report r;

	int rc = http_body_js(req, &body, err);
	if (rc == 0)
		rc = status_report_decode(body, http_arena(req), &r, err);
	if (rc < 0)
		return rc;
	(void)pthread_mutex_lock(&p->lock);
	bool busy = p->busy > 0;
	if (busy)
		p->busy--;
	else if (r.exit_code >= 0)
		buf_printf(&p->told, "%s(%d) ", r.status, (int)r.exit_code);
	else
		buf_printf(&p->told, "%s ", r.status);
	(void)pthread_mutex_unlock(&p->lock);
	return busy ? err_set(err, ERR_UNAVAILABLE, "later") : http_reply_null(req, 202);
}

static const struct http_route routes[] = {
	{"POST", "/api/jobs/lease/renew", HTTP_WORKER, .handle = on_renew},
	{"POST", "/api/jobs/status", HTTP_WORKER, .handle = on_status},
};

static unsigned peek(struct plane *p, const unsigned *number)
{
	(void)pthread_mutex_lock(&p->lock);
	unsigned value = *number;
	(void)pthread_mutex_unlock(&p->lock);
	return value;
}

static void poke(struct plane *p, unsigned *number, unsigned value)
{
	(void)pthread_mutex_lock(&p->lock);
	*number = value;
	(void)pthread_mutex_unlock(&p->lock);
}

static char *told(struct plane *p)
{
	(void)pthread_mutex_lock(&p->lock);
	char *text = xstrdup(p->told.data != NULL ? p->told.data : "");
	(void)pthread_mutex_unlock(&p->lock);
	return text;
}

/* --- the agent --- */

struct world {
	char path[32];
	struct plane plane;
	struct http_server_opts server_opts;
	struct agent_settings settings;
	struct agent agent;
	struct err err;
};

static void nothing(struct agent *a)
{
	(void)a;
}

static void put_asset(struct world *w, const char *name)
{
	assert_int_equal(file_write_atomic(w->agent.host.assets_fd, name, STR("bytes"), 0644, &w->err), 0);
}

static int folder(struct world *w, const char *name)
{
	autofree char *path = xasprintf("%s/%s", w->path, name);
	int fd = -1;

	assert_int_equal(dir_make(path, 0700, &w->err), 0);
	assert_int_equal(dir_open(path, &fd, &w->err), 0);
	return fd;
}

/* Loop, client, database and thread of one agent: made anew when another takes over. */
static void start_agent(struct world *w)
{
	struct agent *a = &w->agent;
	autofree char *url = xasprintf("http://127.0.0.1:%u/", (unsigned)http_server_port(w->plane.server));
	autofree char *db = xasprintf("%s/agent.db", w->path);
	autoptr(secret) token = secret_new("t", 1);

	a->slots = slots_make(4, 4096, 1, 1);
	assert_int_equal(loop_new(&a->loop, &w->err), 0);
	assert_int_equal(
		control_client_new(
			&(struct control_client_opts){.loop = a->loop, .url = url, .agent_id = "a", .token = token},
			&a->control, &w->err),
		0);
	assert_int_equal(state_open(a->loop, db, "host-1", &a->state, &w->err), 0);
	assert_int_equal(chores_new(a->loop, &a->chores, &w->err), 0);
	a->metrics = agent_metrics_new();
}

static void stop_agent(struct world *w)
{
	struct agent *a = &w->agent;

	chores_free(a->chores);
	state_free(a->state);
	jobs_forget(a);
	control_client_free(a->control);
	loop_free(a->loop);
	metrics_free(a->metrics);
}

static int begin(void **state)
{
	static struct world w;
	static char id[] = "a";

	w = (struct world){.path = "/tmp/nimbus-job-XXXXXX",
			   .server_opts = {.routes = routes,
					   .route_count = ARRAY_LEN(routes),
					   .ctx = &w.plane,
					   .io_threads = 1,
					   .workers = 1},
			   .settings = {.job_timeout = 60 * NS_PER_S, .vm_shutdown_grace = NS_PER_S},
			   .agent = {.settings = &w.settings, .id = id, .changed = nothing}};
	assert_non_null(mkdtemp(w.path));
	(void)pthread_mutex_init(&w.plane.lock, NULL);
	w.plane.server = http_server_new(&w.server_opts);
	assert_int_equal(http_server_start(w.plane.server, &w.err), 0);
	w.agent.host.vms_fd = folder(&w, "vms");
	w.agent.host.assets_fd = folder(&w, "assets");
	w.agent.host.scratch_fd = folder(&w, "scratch");
	w.agent.host.verified_fd = folder(&w, "verified");
	assert_int_equal(process_self_exec_fd(&w.agent.host.self_fd, &w.err), 0);
	put_asset(&w, "vmlinux");
	put_asset(&w, "initrd");
	put_asset(&w, "demo.squashfs");
	start_agent(&w);
	*state = &w;
	return 0;
}

static int end(void **state)
{
	struct world *w = *state;

	stop_agent(w);
	http_server_stop(w->plane.server, clock_monotonic_ns() + 5 * NS_PER_S);
	http_server_free(w->plane.server);
	(void)pthread_mutex_destroy(&w->plane.lock);
	buf_fini(&w->plane.told);
	fd_close(&w->agent.host.vms_fd);
	fd_close(&w->agent.host.assets_fd);
	fd_close(&w->agent.host.scratch_fd);
	fd_close(&w->agent.host.self_fd);
	fd_close(&w->agent.host.verified_fd);
	return dir_remove(AT_FDCWD, w->path, &w->err);
}

static struct agent_job *lease(struct world *w, const char *behaviour, const char *image)
{
	struct arena *arena = arena_new();
	struct lease_answer *answer = arena_alloc(arena, sizeof(*answer));
	const char **argv = arena_alloc(arena, sizeof(*argv));

	argv[0] = behaviour;
	*answer = (struct lease_answer){.has_job = true,
					.job = {.job_id = 1,
						.attempt = 1,
						.org_id = 1,
						.image = image,
						.argv = {argv, 1},
						.vcpus = 1,
						.memory_mb = 256,
						.disk_mb = 16},
					.fence_token = 9,
					.lease_ttl_seconds = 30};
	job_begin(&w->agent, arena, answer);
	return w->agent.jobs;
}

static void step(struct world *w)
{
	assert_int_equal(loop_step(w->agent.loop, clock_monotonic_ns() + 30 * NS_PER_S, &w->err), 0);
}

static void run_to(struct world *w, struct agent_job *j, enum job_life life)
{
	while (j->life != life)
		step(w);
}

/* Until nothing of it is left, here and in what a next agent would find. */
static void run_to_end(struct world *w)
{
	struct state_job *rows = NULL;
	size_t rows_count = 0;
	struct stat st;

	while (w->agent.jobs != NULL)
		step(w);
	assert_int_equal(w->agent.slots.vcpus_taken, 0);
	assert_int_equal(w->agent.slots.memory_mb_taken, 0);
	assert_int_not_equal(fstatat(w->agent.host.vms_fd, "1-1", &st, 0), 0);
	autoptr(arena) arena = arena_new();
	assert_int_equal(state_load(w->agent.state, arena, &rows, &rows_count, &w->err), 0);
	assert_int_equal(rows_count, 0);
}

static void assert_told(struct world *w, const char *all)
{
	autofree char *text = told(&w->plane);

	assert_string_equal(text, all);
}

static void a_job_runs_with_its_secrets_and_its_end_is_told(void **state)
{
	struct world *w = *state;

	(void)lease(w, "exit-by-secret", "demo");
	assert_int_equal(w->agent.slots.vcpus_taken, 1);
	run_to_end(w);
	/* `running` may be overtaken by the end. */
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "starting "));
	assert_non_null(strstr(text, "failed(7) "));
	assert_int_equal(peek(&w->plane, &w->plane.secrets_given), 1);
	assert_true(peek(&w->plane, &w->plane.renewals) >= 2);
	assert_int_equal((int)metrics_get(w->agent.metrics, M_LOG_BATCHES), 3);
	assert_int_equal((int)metrics_get(w->agent.metrics, M_LOG_ERRORS), 1);
	assert_int_equal((int)metrics_get(w->agent.metrics, M_SERVICE_REQUESTS), 2);
	assert_int_equal((int)metrics_get(w->agent.metrics, M_SERVICE_SENT), 30);
	assert_int_equal((int)metrics_get(w->agent.metrics, M_SERVICE_REFUSED), 1);
}

static void a_stale_fence_starts_nothing(void **state)
{
	struct world *w = *state;

	poke(&w->plane, &w->plane.refuse_renewal, 1);
	(void)lease(w, "exit-by-secret", "demo");
	run_to_end(w);
	assert_told(w, "");
	assert_int_equal((int)metrics_get(w->agent.metrics, M_JOBS_STARTED), 0);
	assert_int_equal((int)metrics_get(w->agent.metrics, M_LEASES_LOST), 1);
}

static void a_fence_that_is_stale_after_the_boot_gives_no_secret(void **state)
{
	struct world *w = *state;

	poke(&w->plane, &w->plane.refuse_renewal, 2);
	(void)lease(w, "exit-by-secret", "demo");
	run_to_end(w);
	assert_int_equal(peek(&w->plane, &w->plane.secrets_given), 0);
	autofree char *text = told(&w->plane);
	assert_null(strstr(text, "failed"));
	assert_null(strstr(text, "lost"));
}

static void a_killed_shim_is_a_lost_job(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "runs", "demo");
	run_to(w, j, LIFE_RUNNING);
	assert_int_equal(process_signal(&j->shim, SIGKILL, &w->err), 0);
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "lost "));
}

static void a_shim_that_talks_nonsense_is_a_lost_job(void **state)
{
	struct world *w = *state;

	(void)lease(w, "nonsense", "demo");
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "lost "));
}

static void a_running_job_is_cancelled(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "runs", "demo");
	run_to(w, j, LIFE_RUNNING);
	struct agent_command c = {.type = "cancel", .job_id = 1, .fence_token = 8};
	assert_false(jobs_command(&w->agent, &c)); /* another lease's */
	c.fence_token = 9;
	assert_true(jobs_command(&w->agent, &c));
	assert_false(jobs_command(&w->agent, &c)); /* no news */
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "cancelled "));
}

static void a_job_that_is_cancelled_at_once_needs_no_vm(void **state)
{
	struct world *w = *state;

	poke(&w->plane, &w->plane.cancel, 1);
	(void)lease(w, "runs", "demo");
	run_to_end(w);
	assert_told(w, "cancelled ");
	assert_int_equal((int)metrics_get(w->agent.metrics, M_JOBS_STARTED), 0);
}

static void an_image_that_is_not_here_fails_the_job(void **state)
{
	struct world *w = *state;

	(void)lease(w, "runs", "missing");
	run_to_end(w);
	assert_told(w, "failed ");
}

static void a_booting_job_is_cancelled(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "never-boots", "demo");
	run_to(w, j, LIFE_BOOTING);
	assert_true(jobs_command(&w->agent, &(struct agent_command){.type = "cancel", .job_id = 1, .fence_token = 9}));
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "cancelled "));
	assert_int_equal(peek(&w->plane, &w->plane.secrets_given), 0);
}

static void lines_that_a_dead_shim_left_are_shipped_by_another(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "dies-shipping", "demo");
	run_to(w, j, LIFE_RUNNING);
	assert_true(jobs_command(&w->agent, &(struct agent_command){.type = "cancel", .job_id = 1, .fence_token = 9}));
	run_to(w, j, LIFE_CLOSING);
	while (w->agent.jobs != NULL && j->revivals == 0)
		step(w);
	assert_non_null(w->agent.jobs);
	run_to_end(w);
}

static void resume_from_row(struct world *w);

static void lines_that_cannot_be_shipped_are_left_to_the_next_agent(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "dies-each-time", "demo");
	run_to(w, j, LIFE_RUNNING);
	assert_true(jobs_command(&w->agent, &(struct agent_command){.type = "cancel", .job_id = 1, .fence_token = 9}));
	while (w->agent.jobs != NULL)
		step(w);
	/* What it died of is mended. */
	assert_int_equal(file_write_atomic(w->agent.host.vms_fd, "1-1/" SHIM_SHIP_FILE, STR("lines"), 0600, &w->err),
			 0);
	stop_agent(w);
	start_agent(w);
	resume_from_row(w);
	run_to_end(w);
}

static void a_refused_renewal_destroys_a_running_vm(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "runs", "demo");
	run_to(w, j, LIFE_RUNNING);
	poke(&w->plane, &w->plane.refuse_renewal, peek(&w->plane, &w->plane.renewals) + 1);
	job_renew(j, false);
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_null(strstr(text, "lost"));
}

static void the_end_is_told_until_it_is_heard(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "exit-by-secret", "demo");
	run_to(w, j, LIFE_CHECKING);
	poke(&w->plane, &w->plane.busy, 3);
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "failed(7) "));
	assert_int_equal(peek(&w->plane, &w->plane.busy), 0);
}

static void given_back_is_lost(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "runs", "demo");
	run_to(w, j, LIFE_RUNNING);
	jobs_give_back(&w->agent);
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "lost "));
}

/* --- one agent after another --- */

static void resume_from_row(struct world *w)
{
	struct state_job *rows = NULL;
	size_t rows_count = 0;
	autoptr(arena) arena = arena_new();

	assert_int_equal(state_load(w->agent.state, arena, &rows, &rows_count, &w->err), 0);
	assert_int_equal(rows_count, 1);
	job_resume(&w->agent, 1, 1, &rows[0]);
}

static void the_next_agent_adopts_a_running_job(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "runs", "demo");
	run_to(w, j, LIFE_RUNNING);
	stop_agent(w); /* as if it had died: the shim is told nothing */
	start_agent(w);
	resume_from_row(w);
	j = w->agent.jobs;
	run_to(w, j, LIFE_RUNNING);
	assert_int_equal(j->lease.fence, 9);
	assert_int_equal(w->agent.slots.vcpus_taken, 1);
	assert_int_equal(w->agent.slots.memory_mb_taken, 256);
	assert_true(jobs_command(&w->agent, &(struct agent_command){.type = "cancel", .job_id = 1, .fence_token = 9}));
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "cancelled "));
}

static void the_next_agent_adopts_without_its_database(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "runs", "demo");
	run_to(w, j, LIFE_RUNNING);
	stop_agent(w);
	start_agent(w);
	job_resume(&w->agent, 1, 1, NULL);
	assert_int_equal(jobs_unclear(&w->agent), 1);
	run_to(w, w->agent.jobs, LIFE_RUNNING);
	assert_int_equal(jobs_unclear(&w->agent), 0);
	assert_int_equal(w->agent.slots.vcpus_taken, 1);
	jobs_give_back(&w->agent);
	run_to_end(w);
}

static void the_next_agent_reports_what_died_meanwhile(void **state)
{
	struct world *w = *state;

	struct agent_job *j = lease(w, "runs", "demo");
	run_to(w, j, LIFE_RUNNING);
	assert_int_equal(process_signal(&j->shim, SIGKILL, &w->err), 0);
	struct process_exit how;
	/* Gone for sure, before the next agent looks. */
	struct process dead = {.pid = j->shim.pid, .pidfd = fd_take(&j->shim.pidfd)};
	loop_source_free(TAKE(j->shim_exit));
	assert_int_equal(process_wait(&dead, clock_monotonic_ns() + 20 * NS_PER_S, &how, &w->err), 0);
	stop_agent(w);
	start_agent(w);
	resume_from_row(w);
	run_to_end(w);
	autofree char *text = told(&w->plane);
	assert_non_null(strstr(text, "lost "));
}

static void the_next_agent_reports_a_result_that_was_not_heard(void **state)
{
	struct world *w = *state;

	poke(&w->plane, &w->plane.busy, 1000);
	struct agent_job *j = lease(w, "exit-by-secret", "demo");
	run_to(w, j, LIFE_REPORTING);
	stop_agent(w);
	assert_told(w, "");
	poke(&w->plane, &w->plane.busy, 0);
	start_agent(w);
	resume_from_row(w);
	run_to_end(w);
	assert_told(w, "failed(7) ");
}

static void a_folder_of_nobody_is_removed_in_silence(void **state)
{
	struct world *w = *state;

	assert_int_equal(mkdirat(w->agent.host.vms_fd, "1-1", 0700), 0);
	job_resume(&w->agent, 1, 1, NULL);
	run_to_end(w);
	assert_told(w, "");
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		WORLD_TEST(a_job_runs_with_its_secrets_and_its_end_is_told),
		WORLD_TEST(a_stale_fence_starts_nothing),
		WORLD_TEST(a_fence_that_is_stale_after_the_boot_gives_no_secret),
		WORLD_TEST(a_killed_shim_is_a_lost_job),
		WORLD_TEST(a_shim_that_talks_nonsense_is_a_lost_job),
		WORLD_TEST(a_running_job_is_cancelled),
		WORLD_TEST(a_job_that_is_cancelled_at_once_needs_no_vm),
		WORLD_TEST(an_image_that_is_not_here_fails_the_job),
		WORLD_TEST(a_booting_job_is_cancelled),
		WORLD_TEST(lines_that_a_dead_shim_left_are_shipped_by_another),
		WORLD_TEST(lines_that_cannot_be_shipped_are_left_to_the_next_agent),
		WORLD_TEST(a_refused_renewal_destroys_a_running_vm),
		WORLD_TEST(the_end_is_told_until_it_is_heard),
		WORLD_TEST(given_back_is_lost),
		WORLD_TEST(the_next_agent_adopts_a_running_job),
		WORLD_TEST(the_next_agent_adopts_without_its_database),
		WORLD_TEST(the_next_agent_reports_what_died_meanwhile),
		WORLD_TEST(the_next_agent_reports_a_result_that_was_not_heard),
		WORLD_TEST(a_folder_of_nobody_is_removed_in_silence),
	};

	if (argc == 2 && strcmp(argv[1], "shim") == 0)
		return shim_main();
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
