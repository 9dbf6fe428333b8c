/*
 * nimbus db status | migrate: the schemas of the control plane's database and of the agent's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/databases.h"
#include "cli/session.h"
#include "store/dsn.h"
#include "store/migrate.h"

#define ABSENT "absent"

struct db_options {
	struct role_flags role;
	struct output_flags output;
};

/* What became of one set. */
struct found {
	const struct database *set;
	bool absent;   /* SQLite, and there is no such file yet */
	char *address; /* without its password */
	struct schema_status status;
};

static bool is_chosen(const struct command_call *call, const struct database *set)
{
	for (size_t i = 0; i < call->arg_count; i++)
		if (strcmp(call->args[i], set->name) == 0)
			return true;
	return call->arg_count == 0;
}

static int check_names(const struct command_call *call, struct err *err)
{
	for (size_t i = 0; i < call->arg_count; i++)
		if (strcmp(call->args[i], databases[0].name) != 0 && strcmp(call->args[i], databases[1].name) != 0)
			return err_set(err, ERR_INVALID, "there is no database '%s': control, agent", call->args[i]);
	return 0;
}

static int examine(const char *url, bool migrate, struct found *f, struct arena *arena, struct err *err)
{
	autovar(dsn) dsn = {0};
	autoptr(sql) sql = NULL;
	int rc = dsn_parse(str_c(url), &dsn, err);

	if (rc < 0)
		return rc;
	f->address = arena_strdup(arena, dsn.shown);
	f->absent = dsn.kind == DSN_SQLITE && access(dsn.path, F_OK) != 0;
	if (f->absent)
		return 0;
	rc = sql_open(&(struct sql_opts){.dsn = url, .connections = 1}, &sql, err);
	if (rc == 0 && migrate)
		rc = sql_migrate(sql, f->set->name, err);
	return rc < 0 ? rc : sql_schema_status(sql, f->set->name, arena, &f->status, err);
}

static const char *summary_of(const struct found *f)
{
	const struct schema_status *s = &f->status;

	if (f->absent)
		return ABSENT;
	if (s->oldest > s->newest)
		return "too new";
	if (s->pending > 0)
		return "pending";
	return s->version > s->newest ? "newer" : "current";
}

/* --- how it is said --- */

static struct js *step_js(const struct schema_step *step)
{
	struct js *o = js_new_object();

	js_set(o, "version", js_new_int(step->version));
	js_set(o, "name", js_new_text(step->name));
	js_set_time(o, "applied_at", step->applied_at);
	js_set(o, "program", step->program != NULL ? js_new_text(step->program) : js_new_null());
	js_set(o, "host", step->host != NULL ? js_new_text(step->host) : js_new_null());
	return o;
}

static struct js *found_js(const struct found *f)
{
	struct js *o = js_new_object();
	struct js *steps = js_new_array();

	js_set(o, "name", js_new_text(f->set->name));
	js_set(o, "address", js_new_text(f->address));
	js_set(o, "status", js_new_text(summary_of(f)));
	js_set(o, "version", js_new_int(f->status.version));
	js_set(o, "newest", js_new_int(f->status.newest));
	js_set(o, "oldest_program", js_new_int(f->status.oldest));
	for (size_t i = 0; i < f->status.step_count; i++)
		js_push(steps, step_js(&f->status.steps[i]));
	js_set(o, "steps", steps);
	return o;
}

static void put_steps(const struct js *steps, const struct screen *screen, struct buf *out)
{
	static const char *const titles[] = {"SCHEMA", "NAME", "APPLIED", "BY", "ON"};
	autoptr(table) t = table_new(titles, ARRAY_LEN(titles));

	for (size_t i = 0; i < js_len(steps); i++) {
		const struct js *step = js_at(steps, i);
		const char *at = js_text(js_get(step, "applied_at"), NULL);
		table_cell_i64(t, js_int(js_get(step, "version"), 0));
		table_cell(t, js_text(js_get(step, "name"), NULL), STYLE_PLAIN);
		table_cell(t, at != NULL ? at : "pending", at != NULL ? STYLE_PLAIN : STYLE_BUSY);
		table_cell(t, js_text(js_get(step, "program"), NULL), STYLE_PLAIN);
		table_cell(t, js_text(js_get(step, "host"), NULL), STYLE_PLAIN);
	}
	table_print(t, screen, out);
}

static void put_database(const struct js *database, const struct screen *screen, struct buf *out)
{
	const char *status = js_text(js_get(database, "status"), "");
	const struct js *steps = js_get(database, "steps");
	int64_t oldest = js_int(js_get(database, "oldest_program"), 0);

	buf_printf(out, "%s  %s\n", js_text(js_get(database, "name"), ""), js_text(js_get(database, "address"), ""));
	if (strcmp(status, ABSENT) == 0) {
		buf_puts(out, "  there is none yet: it is made when the role starts\n");
		return;
	}
	buf_printf(out, "  schema %" PRId64 " of %" PRId64 ": %s\n", js_int(js_get(database, "version"), 0),
		   js_int(js_get(database, "newest"), 0), status);
	if (oldest > 0)
		buf_printf(out, "  programs that know less than schema %" PRId64 " cannot work with it\n", oldest);
	if (js_len(steps) > 0)
		put_steps(steps, screen, out);
}

static void put_databases(const void *ctx, const struct js *list, const struct screen *screen, struct buf *out)
{
	(void)ctx;
	for (size_t i = 0; i < js_len(list); i++)
		put_database(js_at(list, i), screen, out);
}

static const struct listing_column columns[] = {
	{"NAME", "name"},	{"ADDRESS", "address"}, {"STATUS", "status"},
	{"VERSION", "version"}, {"NEWEST", "newest"},	{"OLDEST PROGRAM", "oldest_program"},
};
static const struct listing listing = {
	.id = "name",
	.columns = columns,
	.count = ARRAY_LEN(columns),
	.text = put_databases,
};

static int print_all(const struct db_options *o, const struct found *found, size_t count, struct err *err)
{
	autoptr(js) list = js_new_array();

	for (size_t i = 0; i < count; i++)
		js_push(list, found_js(&found[i]));
	return print_listing(&listing, &o->output, list, err);
}

/* What a script asks: is there something to do. */
static int verdict(struct command_call *call, const struct found *found, size_t count, struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		if (found[i].status.oldest > found[i].status.newest) {
			call->hint = "run a newer nimbus";
			return err_set(err, ERR_CONFLICT, "%s: this nimbus is too old for the database",
				       found[i].set->name);
		}
		if (found[i].status.pending > 0) {
			call->hint = "run 'nimbus db migrate', or start the role, which does it";
			return err_set(err, ERR_CONFLICT, "%s: %zu migrations are pending", found[i].set->name,
				       found[i].status.pending);
		}
	}
	return 0;
}

static int run_on_all(struct command_call *call, bool migrate, struct err *err)
{
	const struct db_options *o = call->options;
	struct found found[DATABASE_COUNT] = {0};
	autovar(role) role = {0};
	size_t count = 0;
	int rc = check_names(call, err);

	if (rc == 0)
		rc = role_open(&o->role, false, &role, err);
	for (size_t i = 0; i < DATABASE_COUNT && rc == 0; i++) {
		autofree char *url = NULL;
		if (!is_chosen(call, &databases[i]))
			continue;
		found[count].set = &databases[i];
		rc = database_url(&role, &databases[i], &url, err);
		if (rc == 0)
			rc = examine(url, migrate, &found[count++], call->arena, err);
		if (url != NULL)
			secret_wipe(url, strlen(url));
	}
	if (rc == 0)
		rc = print_all(o, found, count, err);
	return rc < 0 ? rc : verdict(call, found, count, err);
}

static int run_status(struct command_call *call, struct err *err)
{
	return run_on_all(call, false, err);
}

static int run_migrate(struct command_call *call, struct err *err)
{
	return run_on_all(call, true, err);
}

static const struct command_option options[] = {
	OUTPUT_ROWS(struct db_options, output),
	LISTING_ROWS(struct db_options, output),
};

#define SHARED                                                                                                        \
	.args = "[control|agent]...", .options = options, .option_count = ARRAY_LEN(options), .shared = role_options, \
	.shared_count = ROLE_OPTION_COUNT, .max_args = 2, .options_size = sizeof(struct db_options)

const struct command db_status_command = {
	.path = "db status",
	.listing = &listing,
	.summary = "Show the schemas of the databases, and what is pending",
	.about = "Of the control plane's database and of the agent's, or of the one that is named. Changes nothing. "
		 "Exit 1\n"
		 "where migrations are pending or this program is too old, 7 where a database does not answer.\n",
	.examples = "  nimbus db status\n"
		    "  nimbus db status control --json=version,newest\n"
		    "  nimbus db status --env-file ./nimbus.env && echo nothing to migrate\n",
	.run = run_status,
	SHARED,
};

const struct command db_migrate_command = {
	.path = "db migrate",
	.listing = &listing,
	.summary = "Bring the databases up to this program's schemas",
	.about = "What every role does to its own database when it starts; here by itself, so that it can be done "
		 "before the\n"
		 "first new program starts. Programs of the schema before go on beside it. Forward only.\n",
	.examples = "  nimbus db migrate\n"
		    "  nimbus db migrate control\n"
		    "  nimbus db migrate --env-file ./nimbus.env -o name\n",
	.run = run_migrate,
	SHARED,
};
