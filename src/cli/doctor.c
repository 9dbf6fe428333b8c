/*
 * nimbus doctor: what this machine has, what it lacks, and how to mend that.
 */
#include "cli/doctor.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "proto/endpoints.h"

enum { SMALL_MAX = 4 << 20 /* /proc/cpuinfo of many CPUs */ };

static const char *const verdict_names[] = {[CHECK_OK] = "ok", [CHECK_WARN] = "warn", [CHECK_FAIL] = "fail"};

void say(struct finding *f, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	buf_vprintf(&f->message, fmt, args);
	va_end(args);
}

const char *read_small(struct doctor *d, const char *path)
{
	autovar(buf) text = {0};
	struct err err = {0};

	if (file_read(AT_FDCWD, path, SMALL_MAX, &text, &err) < 0)
		return NULL;
	return arena_str(d->arena, str_trim(buf_str(&text)));
}

/* --- running the checks --- */

static struct js *as_js(const char *name, enum verdict verdict, const struct finding *f, bool fixed)
{
	struct js *check = js_new_object();

	js_set(check, "name", js_new_text(name));
	js_set(check, "status", js_new_text(verdict_names[verdict]));
	js_set(check, "message", js_new_str(buf_str(&f->message)));
	js_set(check, "fix", f->fix != NULL && verdict != CHECK_OK ? js_new_text(f->fix) : js_new_null());
	js_set(check, "fixed", js_new_bool(fixed));
	return check;
}

static void run_check_of(struct doctor *d, const struct doctor_check *check, bool mend, struct js *checks)
{
	struct finding f = {0};
	struct err err = {0};
	bool fixed = false;

	enum verdict verdict = check->look(d, &f);
	if (verdict != CHECK_OK && mend && check->mend != NULL) {
		if (check->mend(d, &err) == 0) {
			buf_clear(&f.message);
			f.fix = NULL;
			verdict = check->look(d, &f);
			fixed = verdict == CHECK_OK;
		} else {
			say(&f, "; could not be mended: %s", err.msg);
		}
	}
	js_push(checks, as_js(check->name, verdict, &f, fixed));
	buf_fini(&f.message);
}

static void run_table(struct doctor *d, const struct doctor_table *table, bool mend, struct js *checks)
{
	for (size_t i = 0; i < table->count; i++)
		run_check_of(d, &table->checks[i], mend, checks);
}

static void doctor_fini(struct doctor *d)
{
	config_unload(&control_config, &d->control);
	config_unload(&agent_config, &d->agent);
	config_unload(&logging_config, &d->logging);
	free(d->assets_dir);
}
AUTOVAR_DEFINE(doctor)

/* By the file that it writes, and the process that is named there. */
static bool is_running(const struct doctor *d)
{
	autofree char *path = xasprintf("%s/" ENDPOINTS_FILE, d->session->role.data_dir);
	struct endpoints found = {0};
	autovar(buf) text = {0};
	struct err err = {0};

	return file_read(AT_FDCWD, path, SMALL_MAX, &text, &err) == 0 &&
	       endpoints_decode(buf_str(&text), d->arena, &found, &err) == 0 && found.pid > 1 &&
	       (kill((pid_t)found.pid, 0) == 0 || access(path, W_OK) != 0);
}

static int load(struct doctor *d, struct err *err)
{
	const struct config_source *source = d->session->role.source;

	int rc = config_load(source, &control_config, &d->control, err);
	if (rc == 0)
		rc = config_load(source, &agent_config, &d->agent, err);
	if (rc == 0)
		rc = config_load(source, &logging_config, &d->logging, err);
	if (rc < 0)
		return rc;
	d->assets_dir = d->agent.assets_dir != NULL ? xstrdup(d->agent.assets_dir)
						    : xasprintf("%s/assets", d->session->role.data_dir);
	d->running = is_running(d);
	return 0;
}

/* False: nothing else can be looked at. */
static bool check_config(const struct role_flags *flags, struct js *checks)
{
	struct finding f = {.fix = "nimbus config check"};
	autovar(buf) first = {0};
	size_t count = config_problems(flags, &first);

	if (count == 0)
		say(&f, "every variable is known and well formed");
	else
		say(&f, "%s%s", first.data, count > 1 ? "; and more" : "");
	js_push(checks, as_js("configuration", count == 0 ? CHECK_OK : CHECK_FAIL, &f, false));
	buf_fini(&f.message);
	return count == 0;
}

int doctor_examine(struct command_call *call, const struct doctor_opts *opts, struct js **ret, struct err *err)
{
	const struct cli_flags *flags = call->options;
	autoptr(js) checks = js_new_array();
	autovar(session) s = {0};
	autovar(doctor) d = {.session = &s, .arena = call->arena, .demanded = opts->demanded};

	if (check_config(&flags->role, checks)) {
		int rc = session_open(call, &s, err);
		if (rc == 0)
			rc = load(&d, err);
		if (rc < 0)
			return rc;
		run_table(&d, &doctor_data, opts->mend, checks);
		run_table(&d, &doctor_machine, opts->mend, checks);
		run_table(&d, &doctor_server, opts->mend, checks);
	}
	*ret = TAKE(checks);
	return 0;
}

/* --- telling --- */

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
		buf_printf(out, "] %-18s ", js_text(js_get(check, "name"), ""));
		(void)terminal_clean(str_c(js_text(js_get(check, "message"), "")), false, out);
		buf_puts(out, js_bool(js_get(check, "fixed"), false) ? " (mended)\n" : "\n");
		if (fix != NULL) {
			buf_printf(out, "%-25s fix: ", "");
			(void)terminal_clean(str_c(fix), false, out);
			buf_putc(out, '\n');
		}
	}
}

static const struct listing_column columns[] = {
	{"CHECK", "name"}, {"STATUS", "status"}, {"MESSAGE", "message"}, {"FIX", "fix"}, {"FIXED", "fixed"},
};
static const struct listing listing = {
	.id = "name",
	.columns = columns,
	.count = ARRAY_LEN(columns),
	.text = put_checks,
};

static bool any(const struct js *checks, enum verdict verdict)
{
	for (size_t i = 0; i < js_len(checks); i++) {
		if (strcmp(js_text(js_get(js_at(checks, i), "status"), ""), verdict_names[verdict]) == 0)
			return true;
	}
	return false;
}

struct doctor_options {
	struct cli_flags cli;
	bool server;
	bool strict;
	bool fix;
};

static int run(struct command_call *call, struct err *err)
{
	const struct doctor_options *o = call->options;
	autoptr(js) checks = NULL;

	int rc = doctor_examine(call, &(struct doctor_opts){.demanded = o->server, .mend = o->fix}, &checks, err);
	if (rc == 0)
		rc = print_listing(&listing, &o->cli.output, checks, err);
	if (rc < 0)
		return rc;
	return any(checks, CHECK_FAIL) || (o->strict && any(checks, CHECK_WARN)) ? 1 : 0;
}

static const struct command_option options[] = {
	{"server", 's', OPTION_FLAG, offsetof(struct doctor_options, server),
	 .help = "No server found is a failure too."},
	{"strict", 0, OPTION_FLAG, offsetof(struct doctor_options, strict), .help = "Warnings are failures."},
	{"fix", 0, OPTION_FLAG, offsetof(struct doctor_options, fix),
	 .help = "Mend what can be mended safely: folders, modes of secret files, installed images."},
	LISTING_ROWS(struct doctor_options, cli.output),
};

const struct command doctor_command = {
	.path = "doctor",
	.listing = &listing,
	.summary = "Check this machine and its servers",
	.about =
		"Each problem comes with what mends it. Exit 1 when a check fails; warnings do not count, except with\n"
		"--strict. --fix stops nothing and destroys nothing.\n",
	.examples = "  nimbus doctor\n"
		    "  nimbus doctor --fix\n"
		    "  nimbus doctor --json | jq -r '.[] | select(.status != \"ok\").fix'\n"
		    "  nimbus doctor --server --url https://ci.example.org\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct doctor_options),
	.run = run,
};
