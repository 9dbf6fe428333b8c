/*
 * What the program says of itself: version, and the topics of the help.
 */
#include <stdio.h>

#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/outcome.h"
#include "cli/session.h"

/* --- version --- */

struct version_options {
	struct cli_flags cli;
	bool server;
};

/* The server's version, or null where it does not say. */
static int ask_server(struct command_call *call, struct js *v, struct err *err)
{
	autovar(session) s = {0};
	autoptr(js) status = NULL;
	const char *url = NULL;

	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = session_control_url(&s, &url, err);
	if (rc == 0)
		rc = session_ask(&s, "GET", "/api/status", NULL, &status, err);
	if (rc < 0)
		return rc;
	const struct js *version = js_get(status, "version");
	struct js *server = js_new_object();
	js_set(server, "url", js_new_text(url));
	js_set(server, "version", version != NULL ? js_copy(version) : js_new_null());
	js_set(server, "same", js_new_bool(strcmp(js_text(version, ""), NIMBUS_VERSION) == 0));
	js_set(v, "server", server);
	return 0;
}

static int tell_versions(const struct js *v, struct err *err)
{
	const struct js *server = js_get(v, "server");
	const char *theirs = js_text(js_get(server, "version"), "an unknown version");
	autovar(buf) out = {0};

	buf_printf(&out, "nimbus %s (%s)\n", NIMBUS_VERSION, nimbus_commit);
	if (server != NULL) {
		buf_puts(&out, "server ");
		(void)terminal_clean(str_c(theirs), false, &out);
		buf_printf(&out, " at %s\n", js_text(js_get(server, "url"), ""));
	}
	return print_text(&out, err);
}

static int run_version(struct command_call *call, struct err *err)
{
	const struct version_options *o = call->options;
	autoptr(js) v = js_new_object();

	js_set(v, "version", js_new_text(NIMBUS_VERSION));
	js_set(v, "commit", js_new_text(nimbus_commit));
	js_set(v, "compiler", js_new_text(__VERSION__));
	int rc = o->server ? ask_server(call, v, err) : 0;
	if (rc == 0)
		rc = o->cli.output.json != NULL ? print_json(&o->cli.output, v, err) : tell_versions(v, err);
	if (rc == 0 && o->server && !js_bool(js_get(js_get(v, "server"), "same"), false))
		(void)fputs("warning: program and server differ: use the server's version of this program\n", stderr);
	return rc;
}

static const struct command_option version_options[] = {
	{"server", 's', OPTION_FLAG, offsetof(struct version_options, server),
	 .help = "The server's too, with a warning where they differ."},
};

const struct command version_command = {
	.path = "version",
	.summary = "Print the version and the commit",
	.examples = "  nimbus --version\n"
		    "  nimbus version --json\n"
		    "  nimbus version --server --url https://ci.example.org\n",
	.options = version_options,
	.option_count = ARRAY_LEN(version_options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct version_options),
	.run = run_version,
};

/* --- exit codes --- */

static int run_exit_codes(struct command_call *call, struct err *err)
{
	autovar(buf) out = {0};

	(void)call;
	buf_puts(&out, "What nimbus exits with:\n\n");
	for (size_t i = 0; i < exit_code_count; i++)
		buf_printf(&out, "%4d  %s\n", exit_codes[i].status, exit_codes[i].meaning);
	return print_text(&out, err);
}

const struct command exit_codes_command = {
	.path = "help exit-codes",
	.summary = "What the exit codes mean",
	.examples = "  nimbus jobs submit --wait -- make test; [ $? -eq 5 ] && echo red\n",
	.run = run_exit_codes,
};

/* --- variables --- */

static void put_tables(struct buf *out, void (*put)(const struct config_table *table, struct buf *out))
{
	for (size_t i = 0; i < settings_table_count; i++) {
		autovar(buf) page = {0};
		put(settings_tables[i], &page);
		if (page.len == 0)
			continue;
		const char *role = settings_tables[i]->role;
		buf_printf(out, "%s%s:\n\n%s", i > 0 ? "\n" : "", role[0] != '\0' ? role : "every role", page.data);
	}
}

static void put_variables(const struct config_table *table, struct buf *out)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		if ((key->flags & CONFIG_RESERVED) != 0)
			continue;
		buf_printf(out, "  %s%s%s\n      %s\n", key->name, key->fallback != NULL ? "=" : "",
			   key->fallback != NULL ? key->fallback : "", key->help);
	}
}

static int run_environment(struct command_call *call, struct err *err)
{
	autovar(buf) out = {0};

	(void)call;
	put_tables(&out, put_variables);
	buf_puts(&out, "\nA secret NIMBUS_X may come as NIMBUS_X_FILE, the path of a file that holds it. Order: flag,\n"
		       "environment, --env-file, DATA/nimbus.env, $XDG_CONFIG_HOME/nimbus/nimbus.env,\n"
		       "/etc/nimbus/nimbus.env.\n");
	return print_text(&out, err);
}

const struct command environment_command = {
	.path = "help environment",
	.summary = "All variables, with their defaults",
	.examples = "  nimbus help environment | grep TLS\n",
	.run = run_environment,
};

/* --- forms of output --- */

static int run_formatting(struct command_call *call, struct err *err)
{
	static const char text[] =
		"Commands that list things print a table for people, and the same content for programs:\n\n"
		"  -o table     columns; on a terminal cut to its width, with relative times\n"
		"  -o json      an array of objects; --json says the same\n"
		"  --json=A,B   these fields only, in this order\n"
		"  -o jsonl     an object a line; with --json=A,B of these fields\n"
		"  -o csv       with a first line of names (RFC 4180)\n"
		"  -o name      an id a line; -q says the same\n\n"
		"On a pipe nothing is cut, times are RFC 3339 in UTC, and there are no colours. Fields keep their "
		"names\n"
		"and meaning; new ones may be added. Standard output is for data, standard error for talk.\n\n"
		"Colours: --color always or never; otherwise NO_COLOR (any value) means none, CLICOLOR_FORCE means "
		"always,\n"
		"and else a terminal gets them unless TERM is dumb. No colour says what no word says.\n\n"
		"  nimbus jobs recent --json=id,state | jq -r '.[] | select(.state == \"failed\").id'\n"
		"  nimbus jobs recent -o csv > jobs.csv\n"
		"  nimbus jobs cancel $(nimbus jobs recent --status queued -q)\n";
	autovar(buf) out = {0};

	(void)call;
	buf_puts(&out, text);
	return print_text(&out, err);
}

const struct command formatting_command = {
	.path = "help formatting",
	.summary = "The forms that output has: tables, JSON, CSV, colours",
	.examples = "  nimbus help formatting\n",
	.run = run_formatting,
};
