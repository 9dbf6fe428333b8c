/*
 * What the program says of itself: version, topics of the help, the reference pages.
 */
#include <inttypes.h>

#include "base/mem.h"
#include "cli/commands.h"
#include "cli/outcome.h"
#include "cli/session.h"

/* --- version --- */

static int run_version(struct command_call *call, struct err *err)
{
	const struct cli_flags *flags = call->options;
	autovar(buf) out = {0};

	if (flags->output.json != NULL) {
		autoptr(js) v = js_new_object();
		js_set(v, "version", js_new_text(NIMBUS_VERSION));
		js_set(v, "commit", js_new_text(nimbus_commit));
		js_set(v, "compiler", js_new_text(__VERSION__));
		return print_json(&flags->output, v, err);
	}
	buf_printf(&out, "nimbus %s (%s)\n", NIMBUS_VERSION, nimbus_commit);
	return print_text(&out, err);
}

const struct command version_command = {
	.path = "version",
	.summary = "Print the version and the commit",
	.examples = "  nimbus --version\n  nimbus version --json\n",
	.shared = cli_options,
	.shared_count = OUTPUT_ROW_COUNT,
	.options_size = sizeof(struct cli_flags),
	.run = run_version,
};

/* --- exit codes --- */

static const struct {
	int status;
	const char *meaning;
} exit_codes[] = {
	{0, "done"},
	{1, "error"},
	{2, "wrong usage, or a request that the server finds wrong"},
	{3, "not found"},
	{4, "token missing, wrong, or not allowed to do that"},
	{EXIT_JOB_FAILED, "the job did not succeed (jobs submit --wait or --follow, logs -f)"},
	{6, "the waiting took too long (--wait-timeout, or no answer in time)"},
	{7, "the server cannot be reached, or cannot work now"},
	{EXIT_INTERRUPTED, "Ctrl-C while waiting; the job goes on"},
};

static int run_exit_codes(struct command_call *call, struct err *err)
{
	autovar(buf) out = {0};

	(void)call;
	buf_puts(&out, "What nimbus exits with:\n\n");
	for (size_t i = 0; i < ARRAY_LEN(exit_codes); i++)
		buf_printf(&out, "%4d  %s\n", exit_codes[i].status, exit_codes[i].meaning);
	return print_text(&out, err);
}

const struct command exit_codes_command = {
	.path = "help exit-codes",
	.summary = "What the exit codes mean",
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
	.run = run_environment,
};

/* --- reference pages: what docs/reference is made of --- */

static void put_cli_page(const struct command_program *program, struct buf *out)
{
	buf_puts(out, "# Command line\n\n`nimbus help exit-codes` says what the exit codes mean.\n");
	for (size_t t = 0; t < program->table_count; t++) {
		const struct command_table *table = program->tables[t];
		buf_printf(out, "\n## %s\n", table->title);
		for (size_t i = 0; i < table->count; i++) {
			if (table->commands[i]->hidden)
				continue;
			buf_printf(out, "\n### nimbus %s\n\n```\n", table->commands[i]->path);
			command_explain(program, table->commands[i], out);
			buf_puts(out, "```\n");
		}
	}
}

static void put_later(struct buf *out)
{
	buf_puts(out, "\n## Later\n\nKnown, so that a file written for the Python Nimbus starts every role; without "
		      "effect today.\n\n| variable | role | meaning |\n|---|---|---|\n");
	for (size_t i = 0; i < settings_table_count; i++) {
		const struct config_table *table = settings_tables[i];
		for (size_t k = 0; k < table->count; k++) {
			const struct config_key *key = &table->keys[k];
			if ((key->flags & CONFIG_RESERVED) != 0)
				buf_printf(out, "| `%s` | %s | %s |\n", key->name,
					   table->role[0] != '\0' ? table->role : "every role", key->help);
		}
	}
}

static void put_configuration_page(const struct command_program *program, struct buf *out)
{
	(void)program;
	buf_puts(out, "# Configuration\n\nVariables, by the role that reads them. A secret `NIMBUS_X` may come as "
		      "`NIMBUS_X_FILE`. The last section lists names\nthat are accepted and not read yet.\n");
	for (size_t i = 0; i < settings_table_count; i++) {
		const struct config_table *table = settings_tables[i];
		bool any = false;
		for (size_t k = 0; k < table->count; k++)
			any = any || (table->keys[k].flags & CONFIG_RESERVED) == 0;
		if (!any)
			continue;
		buf_printf(out, "\n## %s\n\n", table->role[0] != '\0' ? table->role : "Every role");
		config_document(table, out);
	}
	put_later(out);
}

static void put_errors_page(const struct command_program *program, struct buf *out)
{
	(void)program;
	buf_puts(out,
		 "# Errors\n\nEvery error answer is `{\"detail\", \"code\", \"hint\", \"request_id\"}`; the command "
		 "line exits with the code in\nthe third column.\n\n"
		 "| code | HTTP | exit | hint |\n|---|---|---|---|\n");
	for (int code = 1; code < ERR_CODE_COUNT; code++) {
		const struct err_info *info = err_info(code);
		buf_printf(out, "| `%s` | %d | %d | %s |\n", info->name, info->http_status, info->exit_status,
			   info->hint);
	}
}

static int run_reference(struct command_call *call, struct err *err)
{
	static const struct {
		const char *name;
		void (*put)(const struct command_program *program, struct buf *out);
	} pages[] = {
		{"cli", put_cli_page},
		{"configuration", put_configuration_page},
		{"errors", put_errors_page},
	};
	autovar(buf) out = {0};

	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		if (strcmp(pages[i].name, call->args[0]) == 0) {
			pages[i].put(call->program, &out);
			return print_text(&out, err);
		}
	}
	return err_set(err, ERR_NOT_FOUND, "no page '%s': cli, configuration, errors", call->args[0]);
}

const struct command reference_command = {
	.path = "reference",
	.args = "cli|configuration|errors",
	.summary = "Print a reference page as Markdown",
	.hidden = true,
	.min_args = 1,
	.max_args = 1,
	.run = run_reference,
};
