/*
 * nimbus doctor: what this machine has, what it lacks, and how to mend that.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/session.h"
#include "vm/assets.h"
#include "vm/driver.h"
#include "vm/kvm_probe.h"
#include "vm/passt.h"

enum verdict { CHECK_OK, CHECK_WARN, CHECK_FAIL };

static const char *const verdict_names[] = {[CHECK_OK] = "ok", [CHECK_WARN] = "warn", [CHECK_FAIL] = "fail"};

struct doctor {
	struct session *session;
	struct agent_settings agent;
	struct js *checks; /* [{name, status, message, fix}] */
	bool failed;
	bool warned;
};

static void found(struct doctor *d, const char *name, enum verdict verdict, const char *fix, const char *fmt, ...)
	printf_like(5, 6);
static void found(struct doctor *d, const char *name, enum verdict verdict, const char *fix, const char *fmt, ...)
{
	autovar(buf) message = {0};
	va_list args;

	va_start(args, fmt);
	buf_vprintf(&message, fmt, args);
	va_end(args);
	struct js *check = js_new_object();
	js_set(check, "name", js_new_text(name));
	js_set(check, "status", js_new_text(verdict_names[verdict]));
	js_set(check, "message", js_new_str(buf_str(&message)));
	js_set(check, "fix", fix != NULL && verdict != CHECK_OK ? js_new_text(fix) : js_new_null());
	js_push(d->checks, check);
	d->failed = d->failed || verdict == CHECK_FAIL;
	d->warned = d->warned || verdict == CHECK_WARN;
}

/* --- this machine --- */

/* False: nothing else can be looked at. */
static bool check_config(struct doctor *d, const struct role_flags *flags)
{
	autovar(buf) first = {0};
	size_t count = config_problems(flags, &first);

	if (count == 0)
		found(d, "configuration", CHECK_OK, NULL, "every variable is known and well formed");
	else
		found(d, "configuration", CHECK_FAIL, "nimbus config check", "%s%s", first.data,
		      count > 1 ? "; and more" : "");
	return count == 0;
}

static void check_data(struct doctor *d)
{
	const struct role *role = &d->session->role;
	autoclose fd = -1;
	struct err err = {0};
	uint64_t bytes = 0;

	if (access(role->data_dir, F_OK) != 0) {
		found(d, "data directory", CHECK_WARN, "nimbus up", "%s is not there yet; 'nimbus up' makes it",
		      role->data_dir);
		return;
	}
	if (dir_open(role->data_dir, &fd, &err) < 0 || disk_free(fd, &bytes, &err) < 0) {
		found(d, "data directory", CHECK_FAIL, "run this as the user who runs 'nimbus up'", "%s", err.msg);
		return;
	}
	bool full = bytes < (uint64_t)role->common.min_free_disk;
	bool tight = bytes < (UINT64_C(2) << 30);
	found(d, "data directory",
	      full    ? CHECK_FAIL
	      : tight ? CHECK_WARN
		      : CHECK_OK,
	      "free some disk space, or choose another --data", "%s, %" PRIu64 " MiB free", role->data_dir,
	      bytes >> 20);
}

static void check_machine(struct doctor *d)
{
	struct sysinfo info = {0};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (sysinfo(&info) != 0)
		return;
	uint64_t mib = (uint64_t)info.totalram * info.mem_unit >> 20;
	found(d, "machine", mib < 1024 ? CHECK_WARN : CHECK_OK, "a job gets 256 MiB when it asks for nothing else",
	      "%ld CPUs, %" PRIu64 " MiB memory", cpus, mib);
}

static void check_qemu(struct doctor *d)
{
	autofree char *path = NULL;
	struct err err = {0};

	if (vm_find_program(d->agent.qemu_bin, &path, &err) < 0)
		found(d, "qemu", CHECK_FAIL, "apt-get install qemu-system-x86, or set NIMBUS_QEMU_BIN", "%s", err.msg);
	else
		found(d, "qemu", CHECK_OK, NULL, "%s", path);
}

static void check_passt(struct doctor *d)
{
	autofree char *path = NULL;
	struct err err = {0};

	if (passt_find(&path, &err) < 0)
		found(d, "passt", CHECK_WARN, "apt-get install passt", "%s; other jobs need none", err.msg);
	else
		found(d, "passt", CHECK_OK, NULL,
		      "%s; a job with network 'open' reaches what this host reaches, private and link-local networks "
		      "too: no policy limits it yet",
		      path);
}

static char *assets_folder(const struct doctor *d)
{
	return d->agent.assets_dir != NULL ? xstrdup(d->agent.assets_dir)
					   : xasprintf("%s/assets", d->session->role.data_dir);
}

/* The descriptors stay open for the probe. */
struct parts {
	int kernel;
	int initrd;
	int root;
};

static void parts_fini(struct parts *p)
{
	fd_close(&p->kernel);
	fd_close(&p->initrd);
	fd_close(&p->root);
}
AUTOVAR_DEFINE(parts)

static bool check_assets(struct doctor *d, struct parts *parts)
{
	autofree char *folder = assets_folder(d);
	autoclose fd = -1;
	struct err err = {0};

	if (dir_open(folder, &fd, &err) < 0 || assets_open_kernel(fd, &parts->kernel, &err) < 0 ||
	    assets_open_initrd(fd, &parts->initrd, &err) < 0 ||
	    assets_open_rootfs(fd, STR("demo"), &parts->root, &err) < 0) {
		found(d, "kernel and images", CHECK_FAIL, "make assets, then nimbus up, which installs them", "%s",
		      err.msg);
		return false;
	}
	found(d, "kernel and images", CHECK_OK, NULL, "%s", folder);
	return true;
}

static const char *kvm_fix(void)
{
	if (access("/dev/kvm", F_OK) != 0)
		return "switch virtualisation on in the firmware, and load kvm_intel or kvm_amd";
	if (access("/dev/kvm", R_OK | W_OK) != 0)
		return "let the service user open /dev/kvm: add it to group kvm";
	return "none here: the machine that this one runs on does not pass virtualisation on in working order";
}

/* What the agent has found, or a guest that is really started. */
static void check_kvm(struct doctor *d, const struct parts *parts, bool have_parts)
{
	autofree char *agent = xasprintf("%s/agent", d->session->role.data_dir);
	char temp[] = "/tmp/nimbus-doctor-XXXXXX";
	autoclose cache = open(agent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct kvm_verdict verdict = {0};
	struct err err = {0};

	int rc = cache >= 0 ? kvm_probe_cached(cache, &verdict, &err) : KVM_UNKNOWN;
	if (rc == KVM_UNKNOWN && have_parts && mkdtemp(temp) != NULL) {
		fd_close(&cache);
		rc = dir_open(temp, &cache, &err);
		if (rc == 0)
			rc = kvm_probe(
				&(struct kvm_probe_opts){
					.kernel_fd = parts->kernel,
					.initrd_fd = parts->initrd,
					.root_fd = parts->root,
					.cache_fd = cache,
					.program = d->agent.qemu_bin,
				},
				&verdict, &err);
		(void)!dir_remove(AT_FDCWD, temp, NULL);
	}
	if (rc < 0)
		found(d, "kvm", CHECK_WARN, "see above", "%s", err.msg);
	else if (rc == KVM_UNKNOWN)
		found(d, "kvm", CHECK_WARN, "make assets", "not tried: no kernel to try it with");
	else
		found(d, "kvm", verdict.usable ? CHECK_OK : CHECK_WARN, kvm_fix(), "%s", verdict.sentence);
}

/* --- the servers --- */

static void check_ready(struct doctor *d, const char *name, const char *base)
{
	autofree char *url = http_url(base, "/readyz");
	autovar(http_reply) reply = {0};
	struct err err = {0};

	if (http_client_do(d->session->client, &(struct http_call){.url = url, .timeout_ns = 5 * NS_PER_S}, &reply,
			   &err) < 0)
		found(d, name, CHECK_FAIL, reply.hint != NULL ? reply.hint : "nimbus up", "%s", err.msg);
	else
		found(d, name, CHECK_OK, NULL, "%s is ready", base);
}

static void check_token(struct doctor *d)
{
	autoptr(js) status = NULL;
	struct err err = {0};

	if (session_ask(d->session, "GET", "/api/status", NULL, &status, &err) < 0) {
		const char *hint = d->session->call->hint;
		found(d, "token", CHECK_FAIL, hint != NULL ? hint : err_info(err.code)->hint, "%s", err.msg);
		return;
	}
	const char *version = js_text(js_get(status, "version"), NIMBUS_VERSION);
	bool same = strcmp(version, NIMBUS_VERSION) == 0;
	found(d, "token", same ? CHECK_OK : CHECK_WARN, "use the server's version of this program",
	      "accepted; the server is version %s, this program %s", version, NIMBUS_VERSION);
}

static void check_servers(struct doctor *d, bool demanded)
{
	const char *control = NULL;
	const char *logs = NULL;
	struct err err = {0};

	if (session_control_url(d->session, &control, &err) < 0) {
		found(d, "control plane", demanded ? CHECK_FAIL : CHECK_WARN, d->session->call->hint, "%s", err.msg);
		return;
	}
	check_ready(d, "control plane", control);
	if (session_logs_url(d->session, &logs, &err) < 0)
		found(d, "logging pipeline", CHECK_WARN, d->session->call->hint, "%s", err.msg);
	else
		check_ready(d, "logging pipeline", logs);
	check_token(d);
}

/* --- the whole --- */

static void put_checks(const void *ctx, const struct js *checks, const struct screen *screen, struct buf *out)
{
	static const struct {
		const char *name;
		const char *mark;
		enum style style;
	} marks[] = {{"ok", " ok ", STYLE_GOOD}, {"warn", "warn", STYLE_WARN}, {"fail", "fail", STYLE_BAD}};

	(void)ctx;
	for (size_t i = 0; i < js_len(checks); i++) {
		const struct js *check = js_at(checks, i);
		const char *fix = js_text(js_get(check, "fix"), NULL);
		size_t m = 0;
		while (m + 1 < ARRAY_LEN(marks) && strcmp(marks[m].name, js_text(js_get(check, "status"), "")) != 0)
			m++;
		buf_putc(out, '[');
		screen_put(screen, marks[m].style, marks[m].mark, out);
		buf_printf(out, "] %-18s %s\n", js_text(js_get(check, "name"), ""),
			   js_text(js_get(check, "message"), ""));
		if (fix != NULL)
			buf_printf(out, "%-25s fix: %s\n", "", fix);
	}
}

static const struct listing_column columns[] = {
	{"CHECK", "name"},
	{"STATUS", "status"},
	{"MESSAGE", "message"},
	{"FIX", "fix"},
};
static const struct listing listing = {
	.id = "name",
	.columns = columns,
	.count = ARRAY_LEN(columns),
	.text = put_checks,
};

struct doctor_options {
	struct cli_flags cli;
	bool server;
	bool strict;
};

static int run(struct command_call *call, struct err *err)
{
	const struct doctor_options *o = call->options;
	autovar(session) s = {0};
	autovar(parts) parts = {-1, -1, -1};
	autoptr(js) checks = js_new_array();
	struct doctor d = {.session = &s, .checks = checks};

	if (!check_config(&d, &o->cli.role)) {
		int told = print_listing(&listing, &o->cli.output, d.checks, err);
		return told < 0 ? told : 1;
	}
	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = config_load(s.role.source, &agent_config, &d.agent, err);
	if (rc < 0)
		return rc;
	check_data(&d);
	check_machine(&d);
	check_qemu(&d);
	check_passt(&d);
	bool have_parts = check_assets(&d, &parts);
	check_kvm(&d, &parts, have_parts);
	check_servers(&d, o->server);
	config_unload(&agent_config, &d.agent);
	rc = print_listing(&listing, &o->cli.output, d.checks, err);
	if (rc < 0)
		return rc;
	return d.failed || (d.warned && o->strict) ? 1 : 0;
}

static const struct command_option options[] = {
	{"server", 's', OPTION_FLAG, offsetof(struct doctor_options, server),
	 .help = "No server found is a failure too."},
	LISTING_ROWS(struct doctor_options, cli.output),
	{"strict", 0, OPTION_FLAG, offsetof(struct doctor_options, strict), .help = "Warnings are failures."},
};

const struct command doctor_command = {
	.path = "doctor",
	.summary = "Check this machine and its servers",
	.about = "Each problem comes with what mends it. Exit 1 when a check fails; warnings do not count.\n",
	.examples = "  nimbus doctor\n  nimbus doctor --json\n  nimbus doctor --server --url https://ci.example.org\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct doctor_options),
	.run = run,
};
