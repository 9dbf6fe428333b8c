#include "up/up.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "net/loop.h"
#include "up/child.h"
#include "up/handover.h"
#include "up/layout.h"
#include "up/upgrade.h"

/* Beyond the drain time that a server gives itself. */
#define STOP_MARGIN_NS (5 * NS_PER_S)
/* How often a role may fall before it was ready once: then it is not the weather. */
enum { START_TRIES = 3 };

enum phase {
	PHASE_STARTING,
	PHASE_UP,
	PHASE_STOPPING_AGENT,
	PHASE_STOPPING_SERVERS,
};

struct up_options {
	struct role_flags role;
	int64_t port_base;
	bool port_fallback;
	int64_t resume_fd; /* up/handover.h; 0: this is a start */
};

struct up {
	struct layout layout;
	struct loop *loop;
	struct http_client *client;
	struct child *children[UP_ROLE_COUNT];
	struct loop_source *signals[4];
	bool has_terminal;
	enum phase phase;
	char *program; /* where it lay when we started */
	const struct role_flags *flags;
	int lock_fd;
	int previous_fd;	  /* the program whose place we take, until that is done; or -1 */
	char *rolled_back;	  /* why the place came back to us; NULL: it did not */
	size_t replaced;	  /* so many roles of `replacements` run under this program */
	size_t to_replace;	  /* of so many that others started */
	char *hung;		  /* why the role that is being replaced has just been ended; or NULL */
	bool ours[UP_ROLE_COUNT]; /* those that we have started ourselves all the same, since they had no process */
	struct err failure;	  /* why it ends, where nobody asked for that */
};

static bool is_replacing(const struct up *u)
{
	return u->phase == PHASE_UP && u->replaced < u->to_replace;
}

/* --- the folder is ours alone --- */

static int lock_folder(const struct layout *l, int *ret_fd, struct err *err)
{
	autofree char *path = xasprintf("%s/run/up.lock", l->role.data_dir);
	char holder[FILE_HOLDER_SIZE] = "";
	int rc = file_lock(path, 0644, ret_fd, holder, err);

	return rc > 0 ? err_set(err, ERR_CONFLICT, "%s is in use by another 'nimbus up' (process %s)", l->role.data_dir,
				holder)
		      : rc;
}

/* --- what people and scripts see --- */

static char *endpoints_path(const struct up *u)
{
	return xasprintf("%s/" ENDPOINTS_FILE, u->layout.role.data_dir);
}

static void forget_endpoints(const struct up *u)
{
	autofree char *path = endpoints_path(u);

	(void)unlink(path);
}

static int write_endpoints(const struct up *u, struct err *err)
{
	autofree char *path = endpoints_path(u);
	autovar(buf) text = {0};

	endpoints_encode(&u->layout.endpoints, &text);
	return file_write_atomic(AT_FDCWD, path, buf_str(&text), 0644, err);
}

/* A word that any shell takes as it stands. */
static void put_quoted(struct buf *out, const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:@%,";

	if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
		buf_puts(out, word);
		return;
	}
	buf_putc(out, '\'');
	for (; *word != '\0'; word++) {
		if (*word == '\'')
			buf_puts(out, "'\\''");
		else
			buf_putc(out, *word);
	}
	buf_putc(out, '\'');
}

/* This program and, where a shell would not find it by itself, the data directory. */
static void put_command(const struct up *u, const char *verb, const char *rest, struct buf *out)
{
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	autofree char *usual = settings_data_dir(NULL, geteuid() == 0, getenv("XDG_STATE_HOME"), getenv("HOME"));

	self[len > 0 ? len : 0] = '\0';
	buf_puts(out, "  ");
	put_quoted(out, len > 0 ? self : "nimbus");
	buf_printf(out, " %s", verb);
	if (usual == NULL || strcmp(usual, u->layout.role.data_dir) != 0) {
		buf_puts(out, " --data ");
		put_quoted(out, u->layout.role.data_dir);
	}
	buf_printf(out, "%s\n", rest);
}

static void greet(const struct up *u)
{
	const struct endpoints *e = &u->layout.endpoints;
	autovar(buf) text = {0};

	buf_printf(&text, "\nNimbus %s is ready.\n\n", e->version);
	buf_printf(&text, "  control plane     %s\n  logging pipeline  %s\n  agent metrics     %s\n", e->control_plane,
		   e->logging_pipeline, e->agent_metrics);
	buf_printf(&text, "  data              %s\n\nTry, in another terminal:\n\n", u->layout.role.data_dir);
	put_command(u, "run", " --no-workspace -- uname -a", &text);
	put_command(u, "shell", "", &text);
	put_command(u, "jobs list", "", &text);
	put_command(u, "doctor", "", &text);
	buf_puts(&text, "\nCtrl-C stops it.\n");
	(void)fputs(text.data, stdout);
	(void)fflush(stdout);
}

/* --- upgrade --- */

/* Those whom the others call first. The agent last: it needs both, and its jobs wait for nothing meanwhile. */
static const struct {
	enum up_role role;
	int signal;
} replacements[UP_ROLE_COUNT] = {{UP_LOGGING, SIGTERM}, {UP_CONTROL, SIGTERM}, {UP_AGENT, SIGUSR2}};

static bool is_turn_of(const struct up *u, const struct child *c)
{
	return is_replacing(u) && c == u->children[replacements[u->replaced].role];
}

static void tell_upgrade(const struct up *u, bool ok, const char *message)
{
	struct err err = {0};

	if (upgrade_tell(u->layout.role.data_dir, ok, message, &err) < 0)
		log_error("how the upgrade went cannot be written down", F("error", &err));
}

/* `program` NULL: to the one before us, because of `failure`. Returns only when it failed. */
static int leave_to(struct up *u, const char *program, char *failure, struct err *err)
{
	struct handover h = {
		.lock_fd = u->lock_fd,
		.previous_fd = u->previous_fd,
		.program = u->program,
		.failure = failure,
		.begun = failure != NULL ? u->replaced + 1 : 0,
		.sockets = u->layout.sockets,
	};
	autoclose self_fd = -1;

	for (size_t i = 0; i < UP_ROLE_COUNT; i++)
		h.pids[i] = child_pid(u->children[i]);
	if (program == NULL)
		return upgrade_exec(NULL, &h, err);
	int rc = process_self_exec_fd(&self_fd, err);
	h.previous_fd = self_fd;
	return rc < 0 ? rc : upgrade_exec(program, &h, err);
}

static void on_upgrade(void *ctx)
{
	struct up *u = ctx;
	struct err err = {0};

	if (u->phase != PHASE_UP || is_replacing(u)) {
		tell_upgrade(u, false, "it is just starting, stopping or being upgraded: try again later");
		return;
	}
	log_info("another program takes over", F("program", u->program));
	if (upgrade_try(u->program, u->layout.role.data_dir, u->flags->env_file, &err) == 0)
		(void)!leave_to(u, u->program, NULL, &err);
	log_error("no upgrade: all stays as it was", F("error", &err));
	tell_upgrade(u, false, err.msg);
}

/* The program before us knew how to run this system. Its roles that we have not come to still do. */
static void roll_back(struct up *u, const char *failure)
{
	autofree char *copy = xstrdup(failure);
	struct err err = {0};

	if (u->previous_fd < 0) { /* it is tried again and again */
		tell_upgrade(u, false, failure);
		return;
	}
	log_error("the upgrade is rolled back", F("why", failure));
	(void)!leave_to(u, NULL, copy, &err);
	log_error("there is no way back", F("error", &err));
	fd_close(&u->previous_fd);
	tell_upgrade(u, false, failure);
}

static void end_replacing(struct up *u)
{
	fd_close(&u->previous_fd);
	if (u->rolled_back == NULL) {
		log_info("upgraded: every role runs under the new program", F("version", NIMBUS_VERSION));
		tell_upgrade(u, true, NIMBUS_VERSION);
		return;
	}
	autofree char *text =
		xasprintf("%s; rolled back: the program of before (%s) runs again", u->rolled_back, NIMBUS_VERSION);
	log_warn("the upgrade was rolled back: every role runs under the program of before", F("why", u->rolled_back));
	tell_upgrade(u, false, text);
}

/* The role whose turn it is, while there is a way back: it is ended, and then the place is given back. Otherwise its
 * being late stands in the log, and it is waited for. */
static void give_up(struct up *u, struct child *c)
{
	if (u->previous_fd < 0 || u->hung != NULL)
		return;
	u->hung =
		xasprintf("%s hangs under %s: %lld s without being ready or a sign of life (%s%s%s), so it was ended; "
			  "where it only was slow, NIMBUS_UPGRADE_PATIENCE gives it more",
			  child_name(c), NIMBUS_VERSION, (long long)(u->layout.role.common.upgrade_patience / NS_PER_S),
			  child_answer(c), child_words(c)[0] != '\0' ? "; it said last: " : "", child_words(c));
	child_end_hung(c);
}

static void replace_next(struct up *u)
{
	for (; u->replaced < u->to_replace; u->replaced++) {
		enum up_role role = replacements[u->replaced].role;
		if (!u->ours[role]) {
			u->ours[role] = true;
			child_replace(u->children[role], replacements[u->replaced].signal);
			return;
		}
		if (child_is_late(u->children[role]))
			give_up(u, u->children[role]);
		if (!child_is_ready(u->children[role]))
			return;
	}
	end_replacing(u);
}

/* --- phases --- */

static void stop_servers(struct up *u)
{
	u->phase = PHASE_STOPPING_SERVERS;
	child_stop(u->children[UP_LOGGING]);
	child_stop(u->children[UP_CONTROL]);
}

static void stop(struct up *u)
{
	if (u->phase == PHASE_STOPPING_AGENT || u->phase == PHASE_STOPPING_SERVERS) {
		log_info("stopping now, without waiting further");
		for (size_t i = 0; i < UP_ROLE_COUNT; i++) {
			if (u->phase == PHASE_STOPPING_SERVERS || i == UP_AGENT)
				child_stop(u->children[i]);
		}
		return;
	}
	log_info("stopping: jobs that run get the drain time; once more stops now",
		 F("drain_seconds", u->layout.role.common.drain / NS_PER_S));
	u->phase = PHASE_STOPPING_AGENT;
	child_stop(u->children[UP_AGENT]);
}

static void on_signal(void *ctx)
{
	stop(ctx);
}

/* A terminal that went away sends SIGHUP too, and then there is nobody left to say Ctrl-C. */
static void on_hangup(void *ctx)
{
	struct up *u = ctx;
	struct err err = {0};

	if (u->has_terminal && isatty(STDIN_FILENO) == 0) {
		stop(u);
		return;
	}
	if (layout_read_again(&u->layout, u->flags, &err) < 0) {
		log_error("configuration not read again: all stays as it was", F("error", &err));
		return;
	}
	log_info("the roles read their configuration and keys again");
	for (size_t i = 0; i < UP_ROLE_COUNT; i++)
		child_reload(u->children[i]);
	/* Behind them: what is signed with a new secret should not come before they know it. */
	if (layout_renew_secrets(&u->layout, &err) < 0)
		log_error("the tokens of DIR/secrets are not made again", F("error", &err));
}

static void fail(struct up *u, const struct err *err)
{
	if (u->failure.code == ERR_NONE)
		u->failure = *err;
	if (u->phase == PHASE_STARTING || u->phase == PHASE_UP)
		stop(u);
}

static bool all_ready(const struct up *u)
{
	for (size_t i = 0; i < UP_ROLE_COUNT; i++) {
		if (!child_is_ready(u->children[i]))
			return false;
	}
	return true;
}

static void on_ready(struct up *u)
{
	struct err err = {0};

	if (u->phase != PHASE_STARTING || !all_ready(u))
		return;
	u->phase = PHASE_UP;
	if (write_endpoints(u, &err) < 0)
		fail(u, &err);
	else
		greet(u);
}

static void on_fall(struct up *u, const struct child *c)
{
	autofree char *hung = is_turn_of(u, c) ? TAKE(u->hung) : NULL;
	struct err err = {0};

	if (hung != NULL) {
		roll_back(u, hung);
		return;
	}
	if (child_failures(c) < START_TRIES && !child_refused(c))
		return;
	if (u->phase == PHASE_STARTING) {
		(void)err_set(&err, ERR_INTERNAL, "%s does not start", child_name(c));
		fail(u, &err);
	} else if (is_turn_of(u, c)) {
		(void)err_set(&err, ERR_INTERNAL, "%s does not start under %s (%s): the log of 'nimbus up' says why",
			      child_name(c), NIMBUS_VERSION, child_end(c));
		roll_back(u, err.msg);
	}
}

static void on_gone(struct up *u)
{
	if (u->phase == PHASE_STOPPING_AGENT && child_is_gone(u->children[UP_AGENT]))
		stop_servers(u);
	if (u->phase == PHASE_STOPPING_SERVERS && child_is_gone(u->children[UP_LOGGING]) &&
	    child_is_gone(u->children[UP_CONTROL]))
		loop_stop(u->loop);
}

static void on_replaced(struct up *u, const struct child *c)
{
	if (is_turn_of(u, c))
		replace_next(u);
}

static void on_late(struct up *u, struct child *c)
{
	if (is_turn_of(u, c))
		give_up(u, c);
}

static void on_child(void *ctx, struct child *c, enum child_event event)
{
	struct up *u = ctx;

	if (event == CHILD_READY && u->phase == PHASE_STARTING)
		on_ready(u);
	else if (event == CHILD_READY)
		on_replaced(u, c);
	else if (event == CHILD_FELL)
		on_fall(u, c);
	else if (event == CHILD_LATE)
		on_late(u, c);
	else
		on_gone(u);
}

/* --- the whole --- */

/* The processes that the program before us started, or none of its own. */
static int begin_child(struct up *u, size_t i, pid_t pid, struct err *err)
{
	u->ours[i] = pid <= 0;
	return pid > 0 ? child_adopt(u->children[i], pid, err) : child_start(u->children[i], err);
}

static int make_children(struct up *u, const pid_t pids[static UP_ROLE_COUNT], int exec_fd, struct err *err)
{
	const struct layout *l = &u->layout;
	const struct endpoints *e = &l->endpoints;
	const char *const urls[UP_ROLE_COUNT] = {
		[UP_CONTROL] = e->control_plane,
		[UP_LOGGING] = e->logging_pipeline,
		[UP_AGENT] = e->agent_metrics,
	};
	int rc = 0;

	for (size_t i = 0; i < UP_ROLE_COUNT && rc == 0; i++) {
		const char **argv = arena_calloc(l->arena, 5, sizeof(*argv));
		argv[0] = "nimbus";
		argv[1] = up_role_names[i];
		argv[2] = "--env-file";
		argv[3] = layout_settings_file(l);
		const struct child_opts opts = {
			.loop = u->loop,
			.client = u->client,
			.exec_fd = exec_fd,
			.name = up_role_names[i],
			.argv = argv,
			.envp = layout_environment(l, (enum up_role)i),
			.url = urls[i],
			.sockets = &l->sockets.roles[i],
			.user = &l->user,
			.patience_ns = l->role.common.upgrade_patience,
			.stop_ns = l->role.common.drain + (i == UP_AGENT ? 0 : STOP_MARGIN_NS),
			.on_event = on_child,
			.ctx = u,
		};
		u->children[i] = child_new(&opts);
		rc = begin_child(u, i, pids[i], err);
	}
	return rc;
}

static int make_loop(struct up *u, struct err *err)
{
	static const struct {
		int number;
		loop_fn fn;
	} signals[] = {{SIGINT, on_signal}, {SIGTERM, on_signal}, {SIGHUP, on_hangup}, {SIGUSR2, on_upgrade}};

	u->has_terminal = isatty(STDIN_FILENO) == 1;
	int rc = loop_new(&u->loop, err);
	for (size_t i = 0; i < ARRAY_LEN(signals) && rc == 0; i++)
		rc = loop_add_signal(u->loop, signals[i].number, signals[i].fn, u, &u->signals[i], err);
	if (rc == 0)
		rc = http_client_new(u->loop, &u->client, err);
	return rc;
}

static void up_fini(struct up *u)
{
	for (size_t i = 0; i < UP_ROLE_COUNT; i++)
		child_free(u->children[i]);
	http_client_free(u->client);
	for (size_t i = 0; i < ARRAY_LEN(u->signals); i++)
		loop_source_free(u->signals[i]);
	loop_free(u->loop);
	layout_fini(&u->layout);
	free(u->program);
	free(u->rolled_back);
	free(u->hung);
	fd_close(&u->previous_fd);
	fd_close(&u->lock_fd);
}
AUTOVAR_DEFINE(up)

static int prepare(struct up *u, struct err *err)
{
	struct layout *l = &u->layout;
	struct err missing = {0};

	int rc = layout_write_settings(l, err);
	if (rc == 0)
		rc = layout_make_secrets(l, err);
	if (rc == 0 && layout_install_assets(l, &missing) < 0)
		log_warn("jobs cannot start until this is mended", F("error", &missing));
	return rc;
}

static int take_folder(struct up *u, struct command_call *call, struct err *err)
{
	int rc = lock_folder(&u->layout, &u->lock_fd, err);

	if (rc == -ERR_CONFLICT)
		call->hint = "use that one, or stop it first: Ctrl-C where it runs";
	if (rc < 0)
		return rc;
	forget_endpoints(u);
	return 0;
}

static int open_sockets(struct up *u, const struct up_options *options, struct command_call *call, struct err *err)
{
	int rc = layout_open_sockets(&u->layout, options->port_base, options->port_fallback, err);

	if (rc == -ERR_CONFLICT)
		call->hint = "stop that, or choose other ports: --port-base N takes N, N+2 and N+4 (0: free ones)";
	return rc;
}

/* A start, or the program that takes the place of another. */
static int begin(struct up *u, const struct up_options *options, struct command_call *call,
		 pid_t pids[static UP_ROLE_COUNT], struct err *err)
{
	struct handover h = HANDOVER_NONE;

	if (options->resume_fd == 0) {
		int rc = take_folder(u, call, err);
		return rc < 0 ? rc : open_sockets(u, options, call, err);
	}
	int rc = handover_read((int)options->resume_fd, &h, err);
	if (rc < 0)
		return rc;
	u->lock_fd = h.lock_fd;
	u->program = h.program;
	u->rolled_back = h.failure;
	u->phase = PHASE_UP;
	/* Those that a failed upgrade did not come to are this program's own still. */
	u->to_replace = h.failure != NULL ? h.begun : UP_ROLE_COUNT;
	/* Back and forth is enough. */
	if (h.failure == NULL)
		u->previous_fd = h.previous_fd;
	else
		fd_close(&h.previous_fd);
	memcpy(pids, h.pids, sizeof(h.pids));
	layout_take_sockets(&u->layout, &h.sockets);
	return write_endpoints(u, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct up_options *options = call->options;
	autovar(up) u = {.lock_fd = -1, .previous_fd = -1, .flags = &options->role};
	autoclose exec_fd = -1;
	pid_t pids[UP_ROLE_COUNT] = {0};

	(void)signal(SIGPIPE, SIG_IGN);
	int rc = layout_open(&options->role, &u.layout, err);
	if (rc < 0)
		return rc;
	rc = layout_make_folders(&u.layout, err);
	if (rc < 0)
		call->hint =
			"choose another folder with --data, or let the service user through to this one (chmod o+x)";
	if (rc == 0)
		rc = begin(&u, options, call, pids, err);
	if (rc < 0)
		return rc;
	rc = prepare(&u, err);
	if (rc == 0 && u.program == NULL)
		rc = upgrade_program(&u.program, err);
	if (rc == 0)
		rc = process_self_exec_fd(&exec_fd, err);
	if (rc == 0)
		rc = make_loop(&u, err);
	if (rc == 0)
		rc = make_children(&u, pids, exec_fd, err);
	if (rc == 0 && u.phase == PHASE_UP)
		replace_next(&u);
	if (rc == 0)
		rc = loop_run(u.loop, err);
	forget_endpoints(&u);
	if (rc == 0 && u.failure.code != ERR_NONE) {
		*err = u.failure;
		call->hint = "its own words stand above";
		return -err->code;
	}
	return rc;
}

static const struct command_option options[] = {
	{"port-base", 'p', OPTION_INT, offsetof(struct up_options, port_base), .value = "N",
	 .help = "Listen on N, N+2 and N+4; 0 picks free ports.", .max = 65531, .otherwise = PORT_BASE_UNSET},
	{"port-fallback", 0, OPTION_FLAG, offsetof(struct up_options, port_fallback),
	 .help = "Where a port is in use, take free ones and say which."},
	{"resume-fd", 0, OPTION_INT, offsetof(struct up_options, resume_fd), .value = "N",
	 .help = "What a program before this one left.", .max = 1 << 20, .hidden = true},
};

const struct command up_command = {
	.path = "up",
	.summary = "Run the whole system of one machine in the foreground",
	.about = "The first start makes secrets (mode 0600) in the data directory. When everything is ready,\n"
		 "DIR/run/endpoints.json says where it listens. Ctrl-C stops it: jobs that run get NIMBUS_DRAIN\n"
		 "seconds (20); a second Ctrl-C does not wait.\n",
	.examples = "  nimbus up\n"
		    "  nimbus up --data ~/nimbus --port-base 9000\n"
		    "  NIMBUS_GITHUB_DRY_RUN=true nimbus up --port-base 0\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct up_options),
	.run = run,
};
