/*
 * Shape: one sd-event loop; a worker thread for files and processes (worker.c); the store's writer for SQL; and the
 * threads of libmicrohttpd, which only show counters.
 */
#include "agent/agent.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent/chores.h"
#include "agent/commands_loop.h"
#include "agent/context.h"
#include "agent/control_client.h"
#include "agent/job/job.h"
#include "agent/lease_loop.h"
#include "agent/metrics.h"
#include "agent/pool.h"
#include "agent/templates.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/names.h"
#include "net/http_client.h"
#include "net/http_metrics.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "role/role.h"
#include "vm/assets.h"
#include "vm/driver.h"
#include "vm/kvm_probe.h"
#include "vm/tsc.h"

static const int64_t ship_grace_ns = 5 * NS_PER_S;    /* for the last log lines, when nothing else keeps us */
static const int64_t force_grace_ns = 10 * NS_PER_S;  /* for VMs to end and leases to go back */
static const int64_t settle_grace_ns = 10 * NS_PER_S; /* for jobs that are just being started to have their shim */
static const int64_t settle_look_ns = 10 * NS_PER_MS;

struct host_agent {
	struct agent agent; /* first: see of_agent() */
	struct role *role;
	const char *token_file; /* where the token came from; or NULL */
	struct lease_loop *leases;
	struct commands_loop *commands;
	struct http_server *listener;
	struct loop_source *terminate;
	struct loop_source *interrupt;
	struct loop_source *hangup;
	struct loop_source *successor;
	struct loop_source *settled; /* when to look again whether the next agent can take over */
	struct loop_source *end;     /* ends the loop, whatever is left */
	unsigned signals;
	int cache_fd;		/* of the KVM probe's answer */
	struct kvm_verdict kvm; /* the worker's, until on_probed() */
	bool probed;
	atomic_bool
		ready; /* the accelerator is known, and what was adopted has said what it takes; the listener reads */
};

static struct host_agent *of_agent(struct agent *a)
{
	return container_of(a, struct host_agent, agent);
}

/* --- the end --- */

static void on_end(void *ctx)
{
	struct host_agent *r = ctx;

	loop_stop(r->agent.loop);
}

static void end_within(struct host_agent *r, int64_t wait_ns)
{
	loop_timer_set(r->end, clock_monotonic_ns() + wait_ns);
}

static void check_drained(struct host_agent *r)
{
	if (r->signals == 0 || jobs_needed(&r->agent) > 0)
		return;
	if (jobs_count(&r->agent) == 0)
		loop_stop(r->agent.loop);
	else if (r->signals == 1)
		end_within(r, ship_grace_ns);
}

static void on_signal(void *ctx)
{
	struct host_agent *r = ctx;

	r->signals++;
	lease_loop_stop(r->leases);
	pool_stop(r->agent.pool);
	if (r->signals == 1) {
		log_info("stopping: no new jobs, those that run may finish; a second signal ends them",
			 F("jobs", jobs_needed(&r->agent)));
	} else if (r->signals == 2) {
		log_warn("stopping at once: jobs end, their leases go back", F("jobs", jobs_needed(&r->agent)));
		jobs_give_back(&r->agent);
		end_within(r, force_grace_ns);
	}
	check_drained(r);
}

/* --- another agent takes over --- */

/* What a job needs while it is between two rooms would be lost; a shim and a row in the database are what the next
 * agent finds. */
static void leave_when_settled(void *ctx)
{
	struct host_agent *r = ctx;

	if (jobs_unsettled(&r->agent) > 0) {
		loop_timer_set(r->settled, clock_monotonic_ns() + settle_look_ns);
		return;
	}
	log_info("leaving the jobs to the next agent", F("jobs", jobs_count(&r->agent)));
	loop_stop(r->agent.loop);
}

static void on_successor(void *ctx)
{
	struct host_agent *r = ctx;

	if (r->signals > 0)
		return; /* it is stopping */
	log_info("another agent is to take over: no new jobs");
	lease_loop_stop(r->leases);
	pool_stop(r->agent.pool);
	end_within(r, settle_grace_ns);
	leave_when_settled(r);
}

static void on_hangup(void *ctx)
{
	struct host_agent *r = ctx;

	role_reload(r->role);
}

/* --- ready --- */

static void become_ready(struct host_agent *r)
{
	struct agent *a = &r->agent;

	if (r->ready || !r->probed || jobs_unclear(a) > 0)
		return;
	r->ready = true;
	templates_begin(a->templates);
	pool_begin(a->pool);
	log_info("agent ready", F("agent_id", a->id), F("vcpus", a->slots.vcpus), F("memory_mb", a->slots.memory_mb),
		 F("accel", a->accel == VM_KVM ? "kvm" : "tcg"), F("control_plane", a->settings->control_plane_url),
		 F("metrics_port", http_server_port(r->listener)));
	lease_loop_kick(r->leases);
}

static void on_changed(struct agent *a)
{
	struct host_agent *r = of_agent(a);

	become_ready(r);
	pool_look(a->pool);
	if (r->ready)
		lease_loop_kick(r->leases);
	check_drained(r);
}

/* --- the accelerator --- */

static void fd_close_3(int (*fds)[3])
{
	for (size_t i = 0; i < 3; i++)
		fd_close(&(*fds)[i]);
}

/* On the worker: it may take three seconds. */
static void probe_kvm(void *ctx)
{
	struct host_agent *r = ctx;
	const struct vm_host *host = &r->agent.host;
	__attribute__((cleanup(fd_close_3))) int fds[3] = {-1, -1, -1};
	struct err err = {0};

	int rc = assets_open_kernel(host->assets_fd, &fds[0], &err);
	if (rc == 0)
		rc = assets_open_initrd(host->assets_fd, &fds[1], &err);
	if (rc == 0)
		rc = assets_open_rootfs(host->assets_fd, STR("demo"), &fds[2], &err);
	if (rc == 0)
		rc = kvm_probe(&(struct kvm_probe_opts){.kernel_fd = fds[0],
							.initrd_fd = fds[1],
							.root_fd = fds[2],
							.cache_fd = r->cache_fd,
							.program = r->agent.settings->qemu_bin},
			       &r->kvm, &err);
	if (rc < 0) {
		r->kvm.usable = false;
		(void)snprintf(r->kvm.sentence, sizeof(r->kvm.sentence), "KVM could not be tried: %.180s", err.msg);
	}
}

static void on_probed(void *ctx)
{
	struct host_agent *r = ctx;

	r->probed = true;
	r->agent.accel = r->kvm.usable ? VM_KVM : VM_TCG;
	log_info(r->kvm.usable ? "KVM works" : "jobs run without KVM, which is slower", F("why", r->kvm.sentence));
	become_ready(r);
}

static int choose_accel(struct host_agent *r, struct err *err)
{
	const char *accel = r->agent.settings->accel;
	bool forced = strcmp(accel, "auto") != 0;

	if (forced && strcmp(accel, "kvm") != 0 && strcmp(accel, "tcg") != 0)
		return err_set(err, ERR_INVALID, "NIMBUS_ACCEL '%s' is not auto, kvm or tcg", accel);
	if (forced) {
		r->agent.accel = strcmp(accel, "kvm") == 0 ? VM_KVM : VM_TCG;
		r->probed = true;
		return 0;
	}
	if (!chores_give(r->agent.chores, probe_kvm, on_probed, r))
		return err_set(err, ERR_INTERNAL, "the worker has too much to do");
	return 0;
}

/* --- what is shown --- */

static int show_metrics(void *ctx, struct http_request *req, struct err *err)
{
	struct host_agent *r = ctx;
	autovar(buf) text = {0};

	(void)err;
	metrics_write(r->agent.metrics, &text);
	http_metrics_write(r->listener, &text);
	return http_reply_buf(req, 200, METRICS_CONTENT_TYPE, &text);
}

static int show_health(void *ctx, struct http_request *req, struct err *err)
{
	struct js *v = js_new_object();

	(void)ctx;
	(void)err;
	js_set(v, "status", js_new_text("ok"));
	return http_reply_js(req, 200, v);
}

static int show_ready(void *ctx, struct http_request *req, struct err *err)
{
	struct host_agent *r = ctx;

	if (!r->ready)
		return err_set(err, ERR_UNAVAILABLE, "the agent is starting");
	return show_health(ctx, req, err);
}

static const struct http_route routes[] = {
	{"GET", "/metrics", HTTP_INLINE, .handle = show_metrics, .probe = true},
	{"GET", "/healthz", HTTP_INLINE, .handle = show_health, .probe = true},
	{"GET", "/readyz", HTTP_INLINE, .handle = show_ready, .probe = true},
};

static int open_listener(struct host_agent *r, struct err *err)
{
	struct http_server_opts opts = {
		.addresses = (const char *const *)&r->agent.settings->metrics_host,
		.address_count = 1,
		.port = (uint16_t)r->agent.settings->metrics_port,
		.listen_fds = r->role->listen_fds,
		.listen_fd_count = r->role->listen_fd_count,
		.routes = routes,
		.route_count = ARRAY_LEN(routes),
		.ctx = r,
		.io_threads = 1,
		.workers = 1,
		.connections_max = 64,
	};

	r->listener = http_server_new(&opts);
	int rc = http_server_start(r->listener, err);
	return rc < 0 ? err_wrap(err, "metrics") : 0;
}

/* --- the beginning --- */

/* The host's name may hold what a name of ours may not. */
static char *default_id(void)
{
	char host[128] = "";

	(void)gethostname(host, sizeof(host) - 1);
	for (char *c = host; *c != '\0'; c++)
		if (name_check((struct str){c, 1}, "id", NULL) < 0 && *c != '.' && *c != '-')
			*c = '_';
	return xstrdup(host[0] != '\0' ? host : "agent");
}

static int open_folder(const char *data_dir, const char *name, int *ret_fd, struct err *err)
{
	autofree char *path = xasprintf("%s/agent/%s", data_dir, name);

	int rc = dir_make(path, 0700, err);
	return rc < 0 ? rc : dir_open(path, ret_fd, err);
}

static int open_host(struct host_agent *r, struct err *err)
{
	struct vm_host *h = &r->agent.host;
	const struct agent_settings *s = r->agent.settings;
	autofree char *default_assets = xasprintf("%s/assets", r->role->data_dir);

	int rc = open_folder(r->role->data_dir, "vms", &h->vms_fd, err);
	if (rc == 0)
		rc = open_folder(r->role->data_dir, "scratch", &h->scratch_fd, err);
	if (rc == 0)
		rc = open_folder(r->role->data_dir, "cache", &r->cache_fd, err);
	if (rc == 0)
		rc = open_folder(r->role->data_dir, "verified", &h->verified_fd, err);
	if (rc == 0)
		rc = open_folder(r->role->data_dir, "templates", &h->templates_fd, err);
	if (rc == 0)
		rc = dir_open(s->assets_dir != NULL ? s->assets_dir : default_assets, &h->assets_fd, err);
	if (rc == 0)
		rc = process_self_exec_fd(&h->self_fd, err);
	return rc;
}

static int open_state(struct host_agent *r, struct err *err)
{
	autofree char *path = xasprintf("%s/agent/agent.db", r->role->data_dir);
	const char *configured = r->agent.settings->state_database_url;

	return state_open(r->agent.loop, configured != NULL ? configured : path, r->agent.id, &r->agent.state, err);
}

static int open_control(struct host_agent *r, struct err *err)
{
	const struct agent_settings *s = r->agent.settings;

	if (s->token == NULL && r->token_file == NULL)
		return err_set(err, ERR_INVALID,
			       "NIMBUS_CONTROL_PLANE_TOKEN must be set: a token for agent '%s' from "
			       "POST /api/agents/token",
			       r->agent.id);
	if (s->log_sink_url != NULL) {
		int rc = http_url_check(s->log_sink_url, "NIMBUS_LOG_SINK_URL", err);
		if (rc < 0)
			return rc;
	}
	return control_client_new(&(struct control_client_opts){.loop = r->agent.loop,
								.url = s->control_plane_url,
								.agent_id = r->agent.id,
								.token = s->token,
								.token_file = r->token_file},
				  &r->agent.control, err);
}

/* Before any thread starts: they all inherit the blocked signals. */
static int open_loop(struct host_agent *r, struct err *err)
{
	struct agent *a = &r->agent;

	(void)signal(SIGPIPE, SIG_IGN);
	int rc = loop_new(&a->loop, err);
	if (rc == 0)
		rc = loop_add_signal(a->loop, SIGTERM, on_signal, r, &r->terminate, err);
	if (rc == 0)
		rc = loop_add_signal(a->loop, SIGINT, on_signal, r, &r->interrupt, err);
	if (rc == 0)
		rc = loop_add_signal(a->loop, SIGHUP, on_hangup, r, &r->hangup, err);
	if (rc == 0)
		rc = loop_add_signal(a->loop, SIGUSR2, on_successor, r, &r->successor, err);
	if (rc == 0)
		rc = loop_add_timer(a->loop, LOOP_NEVER, LOOP_NORMAL, leave_when_settled, r, &r->settled, err);
	if (rc == 0)
		rc = loop_add_timer(a->loop, LOOP_NEVER, LOOP_NORMAL, on_end, r, &r->end, err);
	return rc;
}

static int64_t host_memory_mb(void)
{
	struct sysinfo info;

	return sysinfo(&info) == 0 ? (int64_t)((uint64_t)info.totalram * info.mem_unit / 1048576) : 0;
}

static void on_template_forgotten(struct agent *a, const char *name)
{
	pool_forget(a->pool, name);
}

static int open_all(struct host_agent *r, struct err *err)
{
	struct agent *a = &r->agent;
	const struct agent_settings *s = a->settings;

	a->id = s->agent_id != NULL ? xstrdup(s->agent_id) : default_id();
	a->slots = slots_make(s->vcpus, s->memory_mb, sysconf(_SC_NPROCESSORS_ONLN), host_memory_mb());
	a->metrics = agent_metrics_new();
	a->tsc_khz = tsc_khz();
	a->host.tsc_khz = a->tsc_khz;
	a->host.vmm = s->qemu_bin;
	a->min_free_disk = r->role->common.min_free_disk;
	jobs_show(a);
	int rc = name_check(str_c(a->id), "NIMBUS_AGENT_ID", err);
	if (rc == 0)
		rc = open_loop(r, err);
	if (rc == 0)
		rc = open_host(r, err);
	if (rc == 0)
		rc = open_control(r, err);
	if (rc == 0)
		rc = open_state(r, err);
	if (rc == 0)
		rc = chores_new(a->loop, &a->chores, err);
	if (rc == 0 && s->templates)
		rc = templates_new(a, on_template_forgotten, &a->templates, err);
	if (rc == 0)
		rc = pool_new(a, &a->pool, err);
	if (rc == 0)
		rc = open_listener(r, err);
	if (rc == 0)
		rc = lease_loop_new(a, &r->leases, err);
	if (rc == 0)
		rc = commands_loop_new(a, &r->commands, err);
	return rc;
}

/* --- what former agents left --- */

struct left_over {
	struct host_agent *role;
	struct state_job *rows;
	size_t count;
	bool *has_folder;
};

static void resume_folder(void *ctx, const char *name, int64_t job_id, int64_t attempt)
{
	struct left_over *l = ctx;
	const struct state_job *row = NULL;

	(void)name;
	for (size_t i = 0; i < l->count; i++)
		if (l->rows[i].job_id == job_id && l->rows[i].attempt == attempt) {
			row = &l->rows[i];
			l->has_folder[i] = true;
		}
	job_resume(&l->role->agent, job_id, attempt, row);
}

/* Folders first; a row without one is of a job that had not got so far, or was nearly gone. */
static int resume(struct host_agent *r, struct err *err)
{
	autoptr(arena) arena = arena_new();
	struct left_over l = {.role = r};

	int rc = state_load(r->agent.state, arena, &l.rows, &l.count, err);
	if (rc < 0)
		return rc;
	l.has_folder = arena_calloc(arena, l.count, sizeof(*l.has_folder));
	rc = vm_folder_each(r->agent.host.vms_fd, resume_folder, &l, err);
	for (size_t i = 0; rc == 0 && i < l.count; i++)
		if (!l.has_folder[i])
			job_resume(&r->agent, l.rows[i].job_id, l.rows[i].attempt, &l.rows[i]);
	return rc;
}

/* --- all of it --- */

/* Threads first; then what they used. Shims live on. */
static void host_agent_fini(struct host_agent *r)
{
	struct agent *a = &r->agent;

	if (r->listener != NULL)
		http_server_stop(r->listener, clock_monotonic_ns() + NS_PER_S);
	http_server_free(r->listener);
	chores_free(a->chores);
	state_free(a->state);
	jobs_forget(a);
	templates_free(a->templates);
	pool_free(a->pool);
	lease_loop_free(r->leases);
	commands_loop_free(r->commands);
	control_client_free(a->control);
	loop_source_free(r->terminate);
	loop_source_free(r->interrupt);
	loop_source_free(r->hangup);
	loop_source_free(r->successor);
	loop_source_free(r->settled);
	loop_source_free(r->end);
	loop_free(a->loop);
	metrics_free(a->metrics);
	fd_close(&a->host.vms_fd);
	fd_close(&a->host.assets_fd);
	fd_close(&a->host.scratch_fd);
	fd_close(&a->host.self_fd);
	fd_close(&a->host.verified_fd);
	fd_close(&a->host.templates_fd);
	fd_close(&r->cache_fd);
	free(a->id);
}
AUTOVAR_DEFINE(host_agent)

static int serve(const struct agent_settings *settings, struct role *role, const char *token_file, struct err *err)
{
	autovar(host_agent) r = {
		.agent = {.settings = settings,
			  .host = {.vms_fd = -1,
				   .assets_fd = -1,
				   .scratch_fd = -1,
				   .self_fd = -1,
				   .verified_fd = -1,
				   .templates_fd = -1},
			  .changed = on_changed},
		.role = role,
		.token_file = token_file,
		.cache_fd = -1,
	};

	int rc = open_all(&r, err);
	if (rc == 0)
		rc = resume(&r, err);
	if (rc == 0)
		rc = choose_accel(&r, err);
	if (rc < 0)
		return rc;
	become_ready(&r);
	rc = loop_run(r.agent.loop, err);
	log_info("agent stopped", F("jobs_left", jobs_count(&r.agent)));
	return rc;
}

/* The file that the token comes from, where it does. */
static const char *token_file_of(const struct role *role)
{
	const char *origin = NULL;

	if (config_source_get(role->source, "NIMBUS_CONTROL_PLANE_TOKEN", &origin) != NULL)
		return NULL;
	return config_source_get(role->source, "NIMBUS_CONTROL_PLANE_TOKEN_FILE", &origin);
}

static int run(struct command_call *call, struct err *err)
{
	struct agent_settings settings = {0};
	autovar(role) role = {0};

	int rc = role_start(call->options, &agent_config, &settings, &role, err);
	if (rc < 0)
		return rc;
	if (geteuid() == 0)
		log_warn("runs as root, and so do its VMs: 'nimbus up' gives them a service user, or name one "
			 "(systemd: User=nimbus)");
	rc = serve(&settings, &role, token_file_of(&role), err);
	config_unload(&agent_config, &settings);
	return rc;
}

const struct command host_agent_command = {
	.path = "host-agent",
	.summary = "Run jobs of a control plane on this host",
	.about = "Leases jobs, runs each in a microVM of its own, reports. SIGTERM: no new jobs, those that run may\n"
		 "finish; a second SIGTERM ends them and gives them back. SIGUSR2: leaves those that run to the agent\n"
		 "that is started next. Jobs outlive an agent that is killed, too: the next one takes them over.\n",
	.examples = "  nimbus host-agent --env-file /etc/nimbus/nimbus.env\n"
		    "  NIMBUS_CONTROL_PLANE_TOKEN_FILE=./agent-token nimbus host-agent\n"
		    "  nimbus config check host-agent && nimbus host-agent\n",
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct role_flags),
	.run = run,
};
