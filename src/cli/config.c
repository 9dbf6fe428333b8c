/*
 * nimbus config show | check: what the variables of a role are, where each comes from, and what is wrong with them.
 */
#include "cli/config.h"

#include <stdio.h>

#include "auth/role_secrets.h"
#include "base/mem.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "store/dsn.h"

struct config_options {
	struct role_flags role;
	bool origin;
	struct output_flags output;
};

static bool is_role(const struct config_table *table)
{
	for (size_t k = 0; k < table->count; k++) {
		if ((table->keys[k].flags & CONFIG_RESERVED) == 0)
			return table->role[0] != '\0';
	}
	return false;
}

/* No name: every table. The keys that all roles read belong to each. */
static bool chosen(const struct command_call *call, const struct config_table *table)
{
	for (size_t i = 0; i < call->arg_count; i++) {
		if (strcmp(call->args[i], table->role) == 0)
			return true;
	}
	return call->arg_count == 0 || table->role[0] == '\0';
}

static int check_names(const struct command_call *call, struct err *err)
{
	autovar(buf) roles = {0};

	for (size_t t = 0; t < settings_table_count; t++) {
		if (is_role(settings_tables[t]))
			buf_printf(&roles, "%s%s", roles.len > 0 ? ", " : "", settings_tables[t]->role);
	}
	for (size_t i = 0; i < call->arg_count; i++) {
		bool known = false;
		for (size_t t = 0; t < settings_table_count; t++)
			known = known ||
				(is_role(settings_tables[t]) && strcmp(settings_tables[t]->role, call->args[i]) == 0);
		if (!known)
			return err_set(err, ERR_INVALID, "there is no role '%s': %s", call->args[i], roles.data);
	}
	return 0;
}

/* --- show --- */

static struct js *item_as_js(const struct config_source *s, const struct config_table *table,
			     const struct config_key *key)
{
	autovar(buf) value = {0};
	struct config_item item = config_item(s, key, &value);
	struct js *o = js_new_object();
	bool any = item.set || key->fallback != NULL;

	js_set(o, "role", table->role[0] != '\0' ? js_new_text(table->role) : js_new_null());
	js_set(o, "name", js_new_text(key->name));
	js_set(o, "value", any ? js_new_str(buf_str(&value)) : js_new_null());
	js_set(o, "default", key->fallback != NULL ? js_new_text(key->fallback) : js_new_null());
	js_set(o, "type", js_new_text(config_type_name(key->type)));
	js_set(o, "origin", js_new_text(item.origin));
	js_set(o, "secret", js_new_bool(item.secret));
	js_set(o, "later", js_new_bool((key->flags & CONFIG_RESERVED) != 0));
	return o;
}

static struct js *items_as_js(const struct command_call *call, const struct config_source *s)
{
	struct js *list = js_new_array();

	for (size_t t = 0; t < settings_table_count; t++) {
		const struct config_table *table = settings_tables[t];
		for (size_t k = 0; k < table->count && chosen(call, table); k++)
			js_push(list, item_as_js(s, table, &table->keys[k]));
	}
	return list;
}

static const struct command_call every_role = {0};

struct js *config_as_js(const struct config_source *s)
{
	return items_as_js(&every_role, s);
}

/* As a file of variables has it. What a later version will read is shown where somebody has set it. */
static void put_items(const void *ctx, const struct js *items, const struct screen *screen, struct buf *out)
{
	const struct config_options *o = ctx;

	for (size_t i = 0; i < js_len(items); i++) {
		const struct js *item = js_at(items, i);
		const char *origin = js_text(js_get(item, "origin"), "");
		autovar(buf) note = {0};
		if (js_bool(js_get(item, "later"), false) && strcmp(origin, "unset") == 0)
			continue;
		buf_printf(out, "%s=", js_text(js_get(item, "name"), ""));
		(void)terminal_clean(str_c(js_text(js_get(item, "value"), "")), false, out);
		buf_printf(&note, "  # %s", origin);
		if (o->origin)
			screen_put(screen, STYLE_DIM, note.data, out);
		buf_putc(out, '\n');
	}
}

static const struct listing_column columns[] = {
	{"NAME", "name"}, {"VALUE", "value"}, {"ORIGIN", "origin"}, {"DEFAULT", "default"},
	{"TYPE", "type"}, {"ROLE", "role"},   {"LATER", "later"},
};

static int run_show(struct command_call *call, struct err *err)
{
	const struct config_options *o = call->options;
	const struct listing listing = {
		.id = "name",
		.columns = columns,
		.count = ARRAY_LEN(columns),
		.text = put_items,
		.ctx = o,
	};
	autovar(role) role = {0};
	autoptr(js) list = NULL;

	int rc = check_names(call, err);
	if (rc == 0)
		rc = role_open(&o->role, true, &role, err);
	if (rc < 0)
		return rc;
	list = items_as_js(call, role.source);
	return print_listing(&listing, &o->output, list, err);
}

/* --- check --- */

struct report {
	struct js *errors;
	struct js *notes;
};

static void add_once(struct js *list, const char *text)
{
	for (size_t i = 0; i < js_len(list); i++) {
		if (strcmp(js_text(js_at(list, i), ""), text) == 0)
			return;
	}
	js_push(list, js_new_text(text));
}

static void on_problem(void *ctx, const struct err *err)
{
	struct report *r = ctx;

	add_once(r->errors, err->msg);
}

static void check_address(struct report *r, const struct config_source *s, const struct config_key *key)
{
	const char *origin = NULL;
	const char *value = config_source_get(s, key->name, &origin);
	autovar(dsn) dsn = {0};
	struct err err = {0};

	if (key->type != CONFIG_DSN || value == NULL || dsn_parse(str_c(value), &dsn, &err) == 0)
		return;
	(void)err_wrap(&err, "%s (%s)", key->name, origin);
	on_problem(r, &err);
}

static void note_later(struct report *r, const struct config_source *s, const struct config_key *key)
{
	autovar(buf) value = {0};
	struct config_item item = config_item(s, key, &value);
	autofree char *text = NULL;

	if (!item.set || (key->flags & CONFIG_RESERVED) == 0)
		return;
	text = xasprintf("%s (%s) has no effect yet: see docs/compatibility.md", key->name, item.origin);
	add_once(r->notes, text);
}

/* What no single variable shows. */
static void check_control_secrets(struct report *r, const struct config_source *s)
{
	struct control_settings settings = {0};
	struct verifier_secrets secrets;
	struct err err = {0};

	if (config_load(s, &control_config, &settings, &err) < 0)
		return; /* said before */
	if (control_secrets(&settings, &secrets, &err) < 0)
		on_problem(r, &err);
	config_unload(&control_config, &settings);
}

static void check_logging_secrets(struct report *r, const struct config_source *s)
{
	struct logging_settings settings = {0};
	struct verifier_secrets secrets;
	bool brief = false;
	struct err err = {0};

	if (config_load(s, &logging_config, &settings, &err) < 0)
		return;
	if (logging_secrets(&settings, &secrets, &brief, &err) < 0)
		on_problem(r, &err);
	else if (brief)
		add_once(r->notes, "NIMBUS_CACHE_SHARED_SECRET is shorter than 32 bytes: no cache token is accepted");
	config_unload(&logging_config, &settings);
}

static void check_tables(struct report *r, const struct command_call *call, const struct config_source *s)
{
	for (size_t t = 0; t < settings_table_count; t++) {
		const struct config_table *table = settings_tables[t];
		if (!chosen(call, table))
			continue;
		config_check(s, table, on_problem, r);
		for (size_t k = 0; k < table->count; k++) {
			check_address(r, s, &table->keys[k]);
			note_later(r, s, &table->keys[k]);
		}
		if (table == &control_config)
			check_control_secrets(r, s);
		if (table == &logging_config)
			check_logging_secrets(r, s);
	}
}

size_t config_problems(const struct role_flags *flags, struct buf *first)
{
	autovar(role) role = {0};
	autoptr(js) errors = js_new_array();
	autoptr(js) notes = js_new_array();
	struct report r = {.errors = errors, .notes = notes};
	struct err err = {0};

	if (role_open_checked(flags, true, on_problem, &r, &role, &err) < 0)
		on_problem(&r, &err);
	else
		check_tables(&r, &every_role, role.source);
	buf_puts(first, js_text(js_at(errors, 0), ""));
	return js_len(errors);
}

static int say_report(const struct report *r, struct err *err)
{
	autovar(buf) out = {0};
	size_t count = js_len(r->errors);

	for (size_t i = 0; i < count; i++) {
		buf_puts(&out, "error: ");
		(void)terminal_clean(str_c(js_text(js_at(r->errors, i), "")), false, &out);
		buf_putc(&out, '\n');
	}
	for (size_t i = 0; i < js_len(r->notes); i++)
		buf_printf(&out, "note: %s\n", js_text(js_at(r->notes, i), ""));
	if (count == 0)
		buf_puts(&out, "the configuration is good\n");
	else
		buf_printf(&out, "%zu error%s\n", count, count == 1 ? "" : "s");
	return print_text(&out, err);
}

static int run_check(struct command_call *call, struct err *err)
{
	const struct config_options *o = call->options;
	autovar(role) role = {0};
	autoptr(js) all = js_new_object();
	struct report r = {.errors = js_new_array(), .notes = js_new_array()};

	js_set(all, "errors", r.errors);
	js_set(all, "notes", r.notes);
	int rc = check_names(call, err);
	if (rc == 0)
		rc = role_open_checked(&o->role, false, on_problem, &r, &role, err);
	if (rc < 0)
		return rc;
	check_tables(&r, call, role.source);
	rc = o->output.json != NULL ? print_json(&o->output, all, err) : say_report(&r, err);
	if (rc < 0)
		return rc;
	return js_len(r.errors) > 0 ? err_info(ERR_INVALID)->exit_status : 0;
}

static const struct command_option options[] = {
	OUTPUT_ROWS(struct config_options, output),
	LISTING_ROWS(struct config_options, output),
	{"origin", 0, OPTION_FLAG, offsetof(struct config_options, origin),
	 .help = "With file and line of each, or environment, default, unset."},
};

#define ROWS(count_)                                                                                          \
	.args = "[ROLE...]", .shared = role_options, .shared_count = ROLE_OPTION_COUNT, .max_args = SIZE_MAX, \
	.options = options, .option_count = (count_), .options_size = sizeof(struct config_options)

const struct command config_show_command = {
	.path = "config show",
	.summary = "Show every setting, and where it comes from",
	.about =
		"ROLE is control-plane, host-agent, logging-pipeline or cli; none: all. Secrets and the passwords of\n"
		"addresses are not shown. What a later version will read is shown where it is set; --json shows all.\n",
	.examples = "  nimbus config show --origin\n"
		    "  nimbus config show --origin control-plane --env-file ./nimbus.env\n"
		    "  nimbus config show --json | jq '.[] | select(.origin != \"default\")'\n",
	ROWS(ARRAY_LEN(options)),
	.run = run_show,
};

const struct command config_check_command = {
	.path = "config check",
	.summary = "Check the settings: all that is wrong, with file and line",
	.about = "Reads what the role would read, asks no server, needs no token. Exit 2 when something is wrong; "
		 "notes,\n"
		 "on variables of later versions, do not count.\n",
	.examples = "  nimbus config check\n"
		    "  nimbus config check control-plane --env-file ./nimbus.env\n"
		    "  nimbus config check --json | jq -r '.errors[]'\n",
	ROWS(OUTPUT_ROW_COUNT),
	.run = run_check,
};
