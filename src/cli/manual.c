#include "cli/manual.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/outcome.h"
#include "model/settings.h"

enum { LINE_WIDTH = 78 };

/* --- mdoc --- */

static void put_escaped(struct str text, struct buf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] == '\\')
			buf_puts(out, "\\e");
		else if (text.data[i] == '-')
			buf_puts(out, "\\-"); /* as it is typed, not a hyphen of prose */
		else
			buf_putc(out, text.data[i]);
	}
}

/* An argument of a macro, whatever is in it. */
static void put_argument(const char *text, struct buf *out)
{
	buf_puts(out, " \"");
	for (const char *c = text; *c != '\0'; c++) {
		if (*c == '"')
			buf_puts(out, "\\(dq");
		else
			put_escaped((struct str){c, 1}, out);
	}
	buf_putc(out, '"');
}

static bool ends_sentence(struct str word)
{
	return word.len > 1 && strchr(".?!", word.data[word.len - 1]) != NULL;
}

/* Running text: filled again, each sentence on a line of its own, as mdoc has it. */
static void put_prose(const char *text, struct buf *out)
{
	struct str rest = str_trim(str_c(text));
	size_t column = 0;

	while (rest.len > 0) {
		size_t len = 0;
		while (len < rest.len && !isspace((unsigned char)rest.data[len]))
			len++;
		struct str word = {rest.data, len};
		if (column > 0)
			buf_putc(out, column + 1 + len > LINE_WIDTH ? '\n' : ' ');
		column = column > 0 && column + 1 + len <= LINE_WIDTH ? column + 1 + len : len;
		if (column == len && (word.data[0] == '.' || word.data[0] == '\''))
			buf_puts(out, "\\&");
		put_escaped(word, out);
		rest = str_trim((struct str){rest.data + len, rest.len - len});
		if (ends_sentence(word) && rest.len > 0) {
			buf_putc(out, '\n');
			column = 0;
		}
	}
	buf_putc(out, '\n');
}

static void put_sentence(const char *text, struct buf *out)
{
	autofree char *sentence = xasprintf("%s.", text);

	put_prose(sentence, out);
}

/* Lines as they stand. */
static void put_literal(const char *lines, struct buf *out)
{
	buf_puts(out, ".Bd -literal -offset indent\n");
	for (struct str rest = str_c(lines); rest.data != NULL && rest.len > 0;) {
		struct str line = str_trim(str_cut(&rest, '\n'));
		if (line.len == 0)
			continue;
		buf_puts(out, line.data[0] == '.' || line.data[0] == '\'' ? "\\&" : "");
		put_escaped(line, out);
		buf_putc(out, '\n');
	}
	buf_puts(out, ".Ed\n");
}

static void put_head(const char *name, const char *section, int64_t made_at, const char *summary, struct buf *out)
{
	static const char *const months[] = {"January", "February", "March",	 "April",   "May",	"June",
					     "July",	"August",   "September", "October", "November", "December"};
	time_t seconds = (time_t)(made_at / NS_PER_S);
	struct tm day = {0};

	(void)gmtime_r(&seconds, &day);
	buf_printf(out, ".Dd %s %d, %d\n.Dt ", months[day.tm_mon], day.tm_mday, day.tm_year + 1900);
	for (const char *c = name; *c != '\0'; c++)
		buf_putc(out, (char)toupper((unsigned char)*c));
	buf_printf(out, " %s\n.Os\n.Sh NAME\n.Nm %s\n.Nd", section, name);
	put_argument(summary, out);
	buf_putc(out, '\n');
}

/* --- pages of commands --- */

static struct str first_word(const struct command *c)
{
	struct str rest = str_c(c->path);

	return str_cut(&rest, ' ');
}

static const char *section_of(const struct command_table *table)
{
	return strcmp(table->title, "Services") == 0 ? "8" : "1";
}

static bool has_page(const struct command_table *table, const struct command *c)
{
	return !c->hidden && strcmp(table->title, "Topics") != 0;
}

/* Is it the first of those that share its page? */
static bool begins_page(const struct command_program *program, const struct command *c)
{
	for (size_t t = 0; t < program->table_count; t++) {
		for (size_t i = 0; i < program->tables[t]->count; i++) {
			const struct command *other = program->tables[t]->commands[i];
			if (has_page(program->tables[t], other) && str_eq(first_word(other), first_word(c)))
				return other == c;
		}
	}
	return false;
}

/* Calls `fn` for each page of commands. */
static void each_page(const struct command_program *program,
		      void (*fn)(const char *name, const char *section, struct buf *out), struct buf *out)
{
	for (size_t t = 0; t < program->table_count; t++) {
		const struct command_table *table = program->tables[t];
		for (size_t i = 0; i < table->count; i++) {
			const struct command *c = table->commands[i];
			if (!has_page(table, c) || !begins_page(program, c))
				continue;
			autofree char *name = xasprintf("nimbus-%.*s", STR_ARG(first_word(c)));
			fn(name, section_of(table), out);
		}
	}
}

static void put_file_name(const char *name, const char *section, struct buf *out)
{
	buf_printf(out, "%s.%s\n", name, section);
}

void manual_list(const struct command_program *program, struct buf *out)
{
	buf_puts(out, "nimbus.1\nnimbus.env.5\n");
	each_page(program, put_file_name, out);
}

static void put_flag(const struct command_option *o, struct buf *out)
{
	if (o->hidden)
		return;
	buf_puts(out, ".It");
	if (o->letter != 0)
		buf_printf(out, " Fl %c ,", o->letter);
	buf_printf(out, " Fl -%s", o->name);
	if (o->value != NULL && o->type == OPTION_MAYBE)
		buf_printf(out, " Ns Op =%s", o->value);
	else if (o->value != NULL) {
		buf_puts(out, " Ar");
		put_argument(o->value, out);
	}
	buf_putc(out, '\n');
	put_prose(o->help, out);
}

static void put_call(const struct command *c, struct buf *out)
{
	buf_puts(out, ".Nm nimbus\n.Cm");
	put_argument(c->path, out);
	buf_puts(out, command_option_count(c) > 0 ? "\n.Op Ar flags\n" : "\n");
	if (c->args != NULL) {
		buf_puts(out, ".Ar");
		put_argument(c->args, out);
		buf_putc(out, '\n');
	}
}

static void put_command(const struct command *c, struct buf *out)
{
	buf_printf(out, ".Ss nimbus %s\n", c->path);
	put_sentence(c->summary, out);
	if (c->about != NULL) {
		buf_puts(out, ".Pp\n");
		put_prose(c->about, out);
	}
	if (c->examples != NULL)
		put_literal(c->examples, out);
	if (command_option_count(c) == 0)
		return;
	buf_puts(out, ".Bl -tag -width Ds\n");
	for (size_t i = 0; i < command_option_count(c); i++)
		put_flag(command_option_at(c, i), out);
	buf_puts(out, ".El\n");
}

static void put_exit_status(struct buf *out)
{
	buf_puts(out, ".Sh EXIT STATUS\n.Bl -tag -width 130 -compact\n");
	for (size_t i = 0; i < exit_code_count; i++) {
		buf_printf(out, ".It %d\n", exit_codes[i].status);
		put_sentence(exit_codes[i].meaning, out);
	}
	buf_puts(out, ".El\n");
}

/* The summary of a page with several commands tells them all. */
static void put_page(const struct command_program *program, struct str word, const char *section, int64_t made_at,
		     struct buf *out)
{
	autofree char *name = xasprintf("nimbus-%.*s", STR_ARG(word));
	autovar(buf) synopsis = {0};
	autovar(buf) text = {0};
	const char *summary = NULL;
	size_t count = 0;

	for (size_t t = 0; t < program->table_count; t++) {
		for (size_t i = 0; i < program->tables[t]->count; i++) {
			const struct command *c = program->tables[t]->commands[i];
			if (!has_page(program->tables[t], c) || !str_eq(first_word(c), word))
				continue;
			put_call(c, &synopsis);
			put_command(c, &text);
			summary = c->summary;
			count++;
		}
	}
	autofree char *several = xasprintf("the commands nimbus %.*s", STR_ARG(word));
	put_head(name, section, made_at, count == 1 ? summary : several, out);
	buf_puts(out, ".Sh SYNOPSIS\n");
	buf_append_str(out, buf_str(&synopsis));
	buf_puts(out, ".Sh DESCRIPTION\n");
	buf_append_str(out, buf_str(&text));
	put_exit_status(out);
	buf_puts(out, ".Sh SEE ALSO\n.Xr nimbus 1 ,\n.Xr nimbus.env 5\n");
}

/* --- nimbus(1) and nimbus.env(5) --- */

static int by_section(const void *a, const void *b)
{
	const char *const *left = a, *const *right = b;
	int order = strrchr(*left, '.')[1] - strrchr(*right, '.')[1];

	return order != 0 ? order : strcmp(*left, *right);
}

/* All other pages, as mandoc wants them: by section, then by name. */
static void put_see_also(const struct command_program *program, struct buf *out)
{
	autovar(buf) list = {0};
	size_t count = 0;

	manual_list(program, &list);
	autofree const char **names = xcalloc(list.len, sizeof(*names)); /* no more lines than bytes */
	for (char *line = strchr(list.data, '\n'); line != NULL; line = strchr(line, '\n')) { /* after ourselves */
		*line++ = '\0';
		if (*line != '\0')
			names[count++] = line;
	}
	qsort(names, count, sizeof(*names), by_section);
	buf_puts(out, ".Sh SEE ALSO\n");
	for (size_t i = 0; i < count; i++) {
		const char *dot = strrchr(names[i], '.');
		buf_printf(out, ".Xr %.*s %s%s\n", (int)(dot - names[i]), names[i], dot + 1, i + 1 < count ? " ," : "");
	}
}

static void put_overview(const struct command_program *program, int64_t made_at, struct buf *out)
{
	put_head("nimbus", "1", made_at, "self-hosted CI, every job in its own microVM", out);
	buf_puts(out, ".Sh SYNOPSIS\n.Nm\n.Ar COMMAND\n.Op Ar args\n.Op Ar flags\n.Sh DESCRIPTION\n");
	put_prose("One program has the services and the commands for people and scripts. Flags stand anywhere; -- ends "
		  "them. "
		  "Every command explains itself with --help, and 'nimbus help TOPIC' the rest.",
		  out);
	for (size_t t = 0; t < program->table_count; t++) {
		const struct command_table *table = program->tables[t];
		bool any = false;
		for (size_t i = 0; i < table->count; i++) {
			const struct command *c = table->commands[i];
			if (c->hidden)
				continue;
			if (!any)
				buf_printf(out, ".Ss %s\n.Bl -tag -width Ds\n", table->title);
			any = true;
			buf_puts(out, ".It Cm");
			put_argument(c->path, out);
			buf_putc(out, '\n');
			put_sentence(c->summary, out);
		}
		buf_puts(out, any ? ".El\n" : "");
	}
	buf_puts(out, ".Sh ENVIRONMENT\n");
	put_prose("All variables begin with NIMBUS_; nimbus.env(5) lists them. NO_COLOR, CLICOLOR_FORCE and TERM=dumb "
		  "say whether there are colours.",
		  out);
	put_exit_status(out);
	put_see_also(program, out);
}

static void put_variable(const struct config_key *key, struct buf *out)
{
	buf_printf(out, ".It Ev %s", key->name);
	if (key->fallback != NULL) {
		buf_puts(out, " No =");
		put_argument(key->fallback, out);
	}
	buf_putc(out, '\n');
	put_prose(key->help, out);
	if (key->type == CONFIG_SECRET || key->type == CONFIG_SECRETS)
		buf_printf(out, "Secret; also as\n.Ev %s_FILE .\n", key->name);
}

static void put_variables(int64_t made_at, struct buf *out)
{
	put_head("nimbus.env", "5", made_at, "variables that configure Nimbus", out);
	buf_puts(out, ".Sh DESCRIPTION\n");
	put_prose("One format, NAME=value a line, as systemd's EnvironmentFile= has it. The first found counts: flag, "
		  "environment, "
		  "--env-file, nimbus.env in the data directory, $XDG_CONFIG_HOME/nimbus/nimbus.env, "
		  "/etc/nimbus/nimbus.env. A name "
		  "that nobody knows is an error with its line.",
		  out);
	for (size_t t = 0; t < settings_table_count; t++) {
		const struct config_table *table = settings_tables[t];
		bool any = false;
		for (size_t k = 0; k < table->count; k++) {
			if ((table->keys[k].flags & CONFIG_RESERVED) != 0)
				continue;
			if (!any)
				buf_printf(out, ".Ss %s\n.Bl -tag -width Ds\n",
					   table->role[0] != '\0' ? table->role : "Every role");
			any = true;
			put_variable(&table->keys[k], out);
		}
		buf_puts(out, any ? ".El\n" : "");
	}
	buf_puts(out, ".Sh FILES\n.Bl -tag -width Ds\n.It Pa /etc/nimbus/nimbus.env\nFor all users.\n"
		      ".It Pa ~/.config/nimbus/nimbus.env\nFor one user.\n.El\n.Sh SEE ALSO\n.Xr nimbus 1\n");
}

int manual_put(const struct command_program *program, const char *page, int64_t made_at, struct buf *out,
	       struct err *err)
{
	if (strcmp(page, "nimbus.1") == 0) {
		put_overview(program, made_at, out);
		return 0;
	}
	if (strcmp(page, "nimbus.env.5") == 0) {
		put_variables(made_at, out);
		return 0;
	}
	for (size_t t = 0; t < program->table_count; t++) {
		const struct command_table *table = program->tables[t];
		for (size_t i = 0; i < table->count; i++) {
			const struct command *c = table->commands[i];
			if (!has_page(table, c) || !begins_page(program, c))
				continue;
			autofree char *name = xasprintf("nimbus-%.*s.%s", STR_ARG(first_word(c)), section_of(table));
			if (strcmp(name, page) == 0) {
				put_page(program, first_word(c), section_of(table), made_at, out);
				return 0;
			}
		}
	}
	return err_set(err, ERR_NOT_FOUND, "no manual page '%s'", page);
}
