/*
 * nimbus reference: what docs/reference and the manual pages are made of.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/manual.h"
#include "cli/session.h"

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

/* --- manual pages --- */

/* As reproducible builds have it: the date of the source, where somebody says it. */
static int find_date(int64_t *ret, struct err *err)
{
	const char *said = getenv("SOURCE_DATE_EPOCH");
	int64_t seconds = 0;

	*ret = clock_unix_ns();
	if (said == NULL)
		return 0;
	int rc = str_to_i64(str_c(said), "SOURCE_DATE_EPOCH", 0, INT32_MAX, &seconds, err);
	*ret = seconds * NS_PER_S;
	return rc;
}

/* Without a name: what pages there are. */
static int print_manual(const struct command_call *call, struct err *err)
{
	autovar(buf) out = {0};
	int64_t made_at = 0;

	int rc = find_date(&made_at, err);
	if (rc == 0 && call->arg_count > 1)
		rc = manual_put(call->program, call->args[1], made_at, &out, err);
	else if (rc == 0)
		manual_list(call->program, &out);
	return rc < 0 ? rc : print_text(&out, err);
}

/* --- the table itself --- */

static struct js *text_or_null(const char *text)
{
	return text != NULL ? js_new_text(text) : js_new_null();
}

static struct js *option_as_js(const struct command_option *o)
{
	static const char *const types[] = {
		[OPTION_FLAG] = "flag",	  [OPTION_TEXT] = "text",   [OPTION_MAYBE] = "text, or nothing",
		[OPTION_TEXTS] = "texts", [OPTION_INT] = "integer", [OPTION_SECONDS] = "duration",
	};
	const char letter[] = {o->letter, '\0'};
	struct js *v = js_new_object();

	js_set(v, "name", js_new_text(o->name));
	js_set(v, "letter", o->letter != 0 ? js_new_text(letter) : js_new_null());
	js_set(v, "type", js_new_text(types[o->type]));
	js_set(v, "value", text_or_null(o->value));
	js_set(v, "choices", text_or_null(o->choices));
	js_set(v, "help", text_or_null(o->help));
	js_set(v, "hidden", js_new_bool(o->hidden));
	return v;
}

static struct js *command_as_js(const struct command *c, const char *table)
{
	struct js *v = js_new_object();
	struct js *flags = js_new_array();

	js_set(v, "path", js_new_text(c->path));
	js_set(v, "table", js_new_text(table));
	js_set(v, "args", text_or_null(c->args));
	js_set(v, "takes_args", js_new_bool(c->max_args > 0));
	js_set(v, "summary", js_new_text(c->summary));
	js_set(v, "about", text_or_null(c->about));
	js_set(v, "examples", text_or_null(c->examples));
	js_set(v, "hidden", js_new_bool(c->hidden));
	for (size_t i = 0; i < command_option_count(c); i++)
		js_push(flags, option_as_js(command_option_at(c, i)));
	js_set(v, "flags", flags);
	return v;
}

static int print_commands(const struct command_program *program, struct err *err)
{
	static const struct output_flags whole = {0};
	autoptr(js) list = js_new_array();

	for (size_t t = 0; t < program->table_count; t++) {
		for (size_t i = 0; i < program->tables[t]->count; i++)
			js_push(list, command_as_js(program->tables[t]->commands[i], program->tables[t]->title));
	}
	return print_json(&whole, list, err);
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
	if (strcmp(call->args[0], "manual") == 0)
		return print_manual(call, err);
	if (strcmp(call->args[0], "commands") == 0)
		return print_commands(call->program, err);
	return err_set(err, ERR_NOT_FOUND, "no page '%s': %s", call->args[0], call->command->args);
}

const struct command reference_command = {
	.path = "reference",
	.args = "cli|configuration|errors|commands|manual [PAGE]",
	.summary = "Print a reference page, the command table as JSON, or a manual page",
	.hidden = true,
	.min_args = 1,
	.max_args = 2,
	.run = run_reference,
};
