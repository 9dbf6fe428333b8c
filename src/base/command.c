#include "base/command.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/suggest.h"
#include "base/terminal.h"

enum { PATH_WORDS_MAX = 3 };

/* --- finding the command --- */

/* How many leading words of `words` the path consists of; 0 where it is another. */
static size_t path_length(const char *path, const char *const *words, size_t count)
{
	struct str rest = str_c(path);
	size_t used = 0;

	while (rest.data != NULL) {
		struct str word = str_cut(&rest, ' ');
		if (used == count || !str_eq(word, str_c(words[used])))
			return 0;
		used++;
	}
	return used;
}

const struct command *command_find(const struct command_program *program, const char *const *words, size_t count,
				   size_t *ret_used)
{
	const struct command *found = NULL;

	*ret_used = 0;
	for (size_t t = 0; t < program->table_count; t++) {
		for (size_t i = 0; i < program->tables[t]->count; i++) {
			const struct command *c = program->tables[t]->commands[i];
			size_t used = path_length(c->path, words, count);
			if (used > *ret_used) {
				*ret_used = used;
				found = c;
			}
		}
	}
	return found;
}

/* Is `words` the beginning of some paths, as "jobs" is of "jobs submit"? */
bool command_in_group(const struct command *c, const char *const *words, size_t count)
{
	struct str rest = str_c(c->path);

	for (size_t i = 0; i < count; i++) {
		if (rest.data == NULL || !str_eq(str_cut(&rest, ' '), str_c(words[i])))
			return false;
	}
	return true;
}

static bool any_in_group(const struct command_program *program, const char *const *words, size_t count)
{
	for (size_t t = 0; t < program->table_count; t++) {
		for (size_t i = 0; i < program->tables[t]->count; i++) {
			if (command_in_group(program->tables[t]->commands[i], words, count))
				return true;
		}
	}
	return false;
}

/* --- options --- */

size_t command_option_count(const struct command *c)
{
	return c->option_count + c->shared_count;
}

const struct command_option *command_option_at(const struct command *c, size_t i)
{
	return i < c->option_count ? &c->options[i] : &c->shared[i - c->option_count];
}

bool command_option_takes_word(const struct command_option *o)
{
	return o->type != OPTION_FLAG && o->type != OPTION_MAYBE;
}

static const struct command_option *find_long(const struct command *c, struct str name)
{
	for (size_t i = 0; i < command_option_count(c); i++) {
		if (str_eq(name, str_c(command_option_at(c, i)->name)))
			return command_option_at(c, i);
	}
	return NULL;
}

static const struct command_option *find_letter(const struct command *c, char letter)
{
	for (size_t i = 0; i < command_option_count(c); i++) {
		if (command_option_at(c, i)->letter == letter)
			return command_option_at(c, i);
	}
	return NULL;
}

const struct command_option *command_find_option(const struct command *c, const char *word)
{
	struct str rest = str_c(word);

	if (str_starts_with(rest, STR("--"))) {
		rest = str_c(word + 2);
		return find_long(c, str_cut(&rest, '='));
	}
	return rest.len == 2 && word[0] == '-' ? find_letter(c, word[1]) : NULL;
}

void command_option_form(const struct command_option *o, struct buf *out)
{
	bool maybe = o->type == OPTION_MAYBE;

	if (o->letter != 0)
		buf_printf(out, "-%c, ", o->letter);
	else
		buf_puts(out, "    ");
	buf_printf(out, "--%s", o->name);
	if (o->value != NULL)
		buf_printf(out, "%s%s%s", maybe ? "[=" : " ", o->value, maybe ? "]" : "");
}

/* --- help --- */

static void put_group(const struct command_program *program, const char *const *words, size_t count, struct buf *out)
{
	for (size_t t = 0; t < program->table_count; t++) {
		const struct command_table *table = program->tables[t];
		bool titled = false;
		for (size_t i = 0; i < table->count; i++) {
			const struct command *c = table->commands[i];
			if (c->hidden || !command_in_group(c, words, count))
				continue;
			if (!titled)
				buf_printf(out, "\n%s:\n", table->title);
			titled = true;
			buf_printf(out, "  %-22s %s\n", c->path, c->summary);
		}
	}
}

static void put_program_help(const struct command_program *program, const char *const *words, size_t count,
			     struct buf *out)
{
	buf_printf(out, "%s\n\nusage: %s", program->summary, program->name);
	for (size_t i = 0; i < count; i++)
		buf_printf(out, " %s", words[i]);
	buf_puts(out, " COMMAND [ARGS] [--flags]\n");
	put_group(program, words, count, out);
	buf_printf(out, "\n'%s COMMAND --help' explains one of them, with examples.\n", program->name);
}

static void put_option(const struct command_option *o, struct buf *out)
{
	autovar(buf) left = {0};

	if (o->hidden)
		return;
	command_option_form(o, &left);
	buf_printf(out, "  %-28s%s%s\n", left.data, left.len >= 28 ? "  " : "", o->help);
}

static void put_usage(const struct command_program *program, const struct command *c, struct buf *out)
{
	buf_printf(out, "usage: %s %s%s%s%s\n", program->name, c->path, c->option_count > 0 ? " [--flags]" : "",
		   c->args != NULL ? " " : "", c->args != NULL ? c->args : "");
}

/* -h: what it is called with. --help leads with examples, as people look for those first. */
static void put_command_help(const struct command_program *program, const struct command *c, bool whole,
			     struct buf *out)
{
	buf_printf(out, "%s\n\n", c->summary);
	put_usage(program, c, out);
	if (whole && c->examples != NULL)
		buf_printf(out, "\nexamples:\n%s", c->examples);
	if (whole && c->about != NULL)
		buf_printf(out, "\n%s", c->about);
	if (c->option_count + c->shared_count > 0)
		buf_puts(out, "\nflags:\n");
	for (size_t i = 0; i < c->option_count; i++)
		put_option(&c->options[i], out);
	for (size_t i = 0; i < c->shared_count; i++)
		put_option(&c->shared[i], out);
	if (!whole)
		buf_puts(out, "\n--help shows more, with examples.\n");
}

/* --- parsing --- */

struct parser {
	const struct command_program *program;
	const struct command *command;
	struct command_call *call;
	char *const *rest; /* what is not read yet; NULL-terminated */
	int help;	   /* 'h' or 'H' when asked for */
};

static int set_flag(const struct command_option *o, const char *value, void *to, struct arena *a, struct err *err)
{
	(void)o;
	(void)value;
	(void)a;
	(void)err;
	*(bool *)to = true;
	return 0;
}

static bool is_choice(const char *choices, struct str value, struct suggest *nearest, struct arena *a)
{
	bool found = false;

	for (struct str rest = str_c(choices); rest.data != NULL && !found;) {
		struct str word = str_cut(&rest, ' ');
		found = str_eq(word, value);
		suggest_offer(nearest, arena_str(a, word));
	}
	return found;
}

static int set_text(const struct command_option *o, const char *value, void *to, struct arena *a, struct err *err)
{
	struct suggest nearest = {.given = str_c(value)};

	if (o->choices != NULL && !is_choice(o->choices, str_c(value), &nearest, a)) {
		const char *meant = suggest_best(&nearest);
		return err_set(err, ERR_INVALID, "--%s '%s' is none of: %s%s%s%s", o->name, value, o->choices,
			       meant != NULL ? "; did you mean " : "", meant != NULL ? meant : "",
			       meant != NULL ? "?" : "");
	}
	*(const char **)to = value;
	return 0;
}

static int set_maybe(const struct command_option *o, const char *value, void *to, struct arena *a, struct err *err)
{
	return set_text(o, value != NULL ? value : "", to, a, err);
}

static int set_texts(const struct command_option *o, const char *value, void *to, struct arena *a, struct err *err)
{
	struct option_texts *texts = to;
	const char **items = arena_calloc(a, texts->count + 1, sizeof(*items));

	(void)o;
	(void)err;
	if (texts->count > 0)
		memcpy(items, texts->items, texts->count * sizeof(*items));
	items[texts->count++] = value;
	texts->items = items;
	return 0;
}

static int set_int(const struct command_option *o, const char *value, void *to, struct arena *a, struct err *err)
{
	bool any = o->min == 0 && o->max == 0;

	(void)a;
	int rc = str_to_i64(str_c(value), arena_printf(a, "--%s", o->name), any ? INT64_MIN : o->min,
			    any ? INT64_MAX : o->max, to, err);
	return rc < 0 ? err_set(err, ERR_INVALID, "%s", err->msg) : 0;
}

bool command_parse_seconds(const char *text, int64_t *ret_ns)
{
	static const struct {
		const char *suffix;
		double seconds;
	} units[] = {{"", 1}, {"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	char *end = NULL;
	double number = strtod(text, &end);

	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		double seconds = number * units[i].seconds;
		bool plain = end != text && text[strspn(text, "0123456789.")] == *end;
		if (plain && strcmp(end, units[i].suffix) == 0 && seconds <= 9e9) {
			*ret_ns = (int64_t)(seconds * (double)NS_PER_S + 0.5);
			return true;
		}
	}
	return false;
}

static int set_seconds(const struct command_option *o, const char *value, void *to, struct arena *a, struct err *err)
{
	(void)a;
	if (command_parse_seconds(value, to))
		return 0;
	return err_set(err, ERR_INVALID, "--%s: '%s' is not a time like 90, 2.5s, 10m or 1h", o->name, value);
}

static int (*const setters[])(const struct command_option *o, const char *value, void *to, struct arena *a,
			      struct err *err) = {
	[OPTION_FLAG] = set_flag, [OPTION_TEXT] = set_text,	  [OPTION_TEXTS] = set_texts,
	[OPTION_INT] = set_int,	  [OPTION_SECONDS] = set_seconds, [OPTION_MAYBE] = set_maybe,
};

static int set_option(struct parser *p, const struct command_option *o, const char *value, struct err *err)
{
	if (o->type == OPTION_FLAG && value != NULL)
		return err_set(err, ERR_INVALID, "--%s takes no value", o->name);
	if (command_option_takes_word(o) && value == NULL) {
		value = *p->rest;
		if (value == NULL)
			return err_set(err, ERR_INVALID, "--%s needs a value: --%s %s", o->name, o->name, o->value);
		p->rest++;
	}
	return setters[o->type](o, value, (char *)p->call->options + o->offset, p->call->arena, err);
}

static int unknown_option(const struct parser *p, struct str name, struct err *err)
{
	struct suggest nearest = {.given = name};

	for (size_t i = 0; i < command_option_count(p->command); i++) {
		if (!command_option_at(p->command, i)->hidden)
			suggest_offer(&nearest, command_option_at(p->command, i)->name);
	}
	const char *meant = suggest_best(&nearest);
	if (meant != NULL)
		p->call->hint = arena_printf(p->call->arena, "did you mean --%s?", meant);
	return err_set(err, ERR_INVALID, "'%s' has no flag --%.*s", p->command->path, STR_ARG(name));
}

/* "--name", "--name=value". */
static int parse_long(struct parser *p, const char *word, struct err *err)
{
	struct str rest = str_c(word + 2);
	struct str name = str_cut(&rest, '=');

	if (str_eq(name, STR("help"))) {
		p->help = 'H';
		return 0;
	}
	const struct command_option *o = find_long(p->command, name);
	return o != NULL ? set_option(p, o, rest.data, err) : unknown_option(p, name, err);
}

/* "-f", "-fj" of flags, "-n5" or "-n 5" of one with a value. */
static int parse_letters(struct parser *p, const char *word, struct err *err)
{
	int rc = 0;

	for (const char *letter = word + 1; *letter != '\0' && rc == 0; letter++) {
		const struct command_option *o = find_letter(p->command, *letter);
		if (o == NULL && *letter == 'h')
			p->help = p->help != 0 ? p->help : 'h';
		else if (o == NULL)
			return err_set(err, ERR_INVALID, "'%s' has no flag -%c", p->command->path, *letter);
		else if (!command_option_takes_word(o))
			rc = set_option(p, o, NULL, err);
		else
			return set_option(p, o, letter[1] != '\0' ? letter + 1 : NULL, err);
	}
	return rc;
}

static int parse_words(struct parser *p, struct err *err)
{
	struct command_call *call = p->call;
	bool dashes = false;
	int rc = 0;

	while (*p->rest != NULL && rc == 0) {
		const char *word = *p->rest++;
		if (!dashes && strcmp(word, "--") == 0) {
			dashes = true;
			call->args_before_dashes = call->arg_count;
		} else if (!dashes && strncmp(word, "--", 2) == 0) {
			rc = parse_long(p, word, err);
		} else if (!dashes && word[0] == '-' && word[1] != '\0') {
			rc = parse_letters(p, word, err);
		} else {
			call->args[call->arg_count++] = word;
		}
	}
	if (!dashes)
		call->args_before_dashes = call->arg_count;
	return rc;
}

static int check_count(const struct parser *p, struct err *err)
{
	const struct command *c = p->command;

	if (p->call->arg_count < c->min_args)
		return err_set(err, ERR_INVALID, "'%s' needs %s", c->path, c->args);
	if (p->call->arg_count > c->max_args)
		return err_set(err, ERR_INVALID, "'%s' does not take '%s'", c->path, p->call->args[c->max_args]);
	return 0;
}

/* --- the whole --- */

/* Whole paths, or their first words alone. */
static const char *nearest_path(const struct command_program *program, const char *given, bool first_words,
				struct arena *a)
{
	struct suggest nearest = {.given = str_c(given)};

	for (size_t t = 0; t < program->table_count; t++) {
		for (size_t i = 0; i < program->tables[t]->count; i++) {
			const struct command *command = program->tables[t]->commands[i];
			struct str rest = str_c(command->path);
			if (!command->hidden)
				suggest_offer(&nearest,
					      first_words ? arena_str(a, str_cut(&rest, ' ')) : command->path);
		}
	}
	return suggest_best(&nearest);
}

static const char *join(const char *const *words, size_t count, struct arena *a)
{
	const char *line = words[0];

	for (size_t i = 1; i < count; i++)
		line = arena_printf(a, "%s %s", line, words[i]);
	return line;
}

/* What follows a command may be its arguments: so fewer and fewer of the words are taken for its path. */
static int unknown_command(const struct command_program *program, const char *const *words, size_t count,
			   struct command_call *call, struct err *err)
{
	const char *given = words[0];
	const char *meant = NULL;

	for (size_t n = count < PATH_WORDS_MAX ? count : PATH_WORDS_MAX; n > 0 && meant == NULL; n--) {
		given = join(words, n, call->arena);
		meant = nearest_path(program, given, n == 1, call->arena);
	}
	if (meant != NULL)
		call->hint = arena_printf(call->arena, "did you mean '%s %s'?", program->name, meant);
	else
		call->hint = arena_printf(call->arena, "'%s --help' lists the commands", program->name);
	return err_set(err, ERR_INVALID, "no command '%s'", given);
}

/* The words before the first flag, with "help" and flags that mean commands made plain. */
static size_t leading_words(int argc, char *const *argv, const char **words)
{
	size_t count = 0;

	for (int i = 1; i < argc && argv[i][0] != '-'; i++)
		words[count++] = argv[i];
	return count;
}

static const char *list_group(const struct command_program *program, const char *const *words, size_t count,
			      struct arena *a)
{
	autovar(buf) list = {0};

	for (size_t t = 0; t < program->table_count; t++) {
		for (size_t i = 0; i < program->tables[t]->count; i++) {
			const struct command *c = program->tables[t]->commands[i];
			if (!c->hidden && command_in_group(c, words, count))
				buf_printf(&list, "%s%s", list.len > 0 ? ", " : "one of: ", c->path);
		}
	}
	return arena_str(a, buf_str(&list));
}

static bool asks_for_help(const char *word)
{
	return word == NULL || strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0;
}

/* No command stands there: a list, "help COMMAND", or a mistake. */
static int parse_other(const struct command_program *program, const char *const *words, size_t count, const char *flag,
		       struct command_call *call, struct buf *help, struct err *err)
{
	bool explain = count > 0 && strcmp(words[0], "help") == 0;
	size_t skip = explain ? 1 : 0;
	size_t used = 0;

	const struct command *c = explain ? command_find(program, words + 1, count - 1, &used) : NULL;
	if (c != NULL) {
		put_command_help(program, c, true, help);
		return COMMAND_HELP;
	}
	bool group = any_in_group(program, words + skip, count - skip);
	if (group && asks_for_help(flag)) {
		put_program_help(program, words + skip, count - skip, help);
		if (explain || flag != NULL || count == 0)
			return COMMAND_HELP;
		call->hint = list_group(program, words, count, call->arena);
		return err_set(err, ERR_INVALID, "'%s' alone does nothing", words[count - 1]);
	}
	if (group) {
		call->hint = arena_printf(call->arena, "'%s --help' lists the commands", program->name);
		return err_set(err, ERR_INVALID, "flags come after the command: '%s'", flag);
	}
	const char *topic = explain ? nearest_path(program, join(words, count, call->arena), false, call->arena) : NULL;
	int rc = unknown_command(program, words + skip, count - skip, call, err);
	if (topic != NULL && strncmp(topic, "help ", strlen("help ")) == 0)
		call->hint = arena_printf(call->arena, "did you mean '%s %s'?", program->name, topic);
	return rc;
}

static void set_defaults(const struct command *c, void *options)
{
	for (size_t i = 0; i < command_option_count(c); i++) {
		const struct command_option *o = command_option_at(c, i);
		if (o->type == OPTION_INT || o->type == OPTION_SECONDS)
			*(int64_t *)(void *)((char *)options + o->offset) = o->otherwise;
	}
}

/* Does a flag of some command in this group, written so, have its value in the next word? */
static bool takes_next_word(const struct command_program *program, const char *const *words, size_t count,
			    const char *flag)
{
	for (size_t t = 0; t < program->table_count; t++) {
		for (size_t i = 0; i < program->tables[t]->count; i++) {
			const struct command *c = program->tables[t]->commands[i];
			const struct command_option *o =
				command_in_group(c, words, count) ? command_find_option(c, flag) : NULL;
			if (o != NULL)
				return command_option_takes_word(o) && strchr(flag, '=') == NULL;
		}
	}
	return false;
}

/* Where, behind flags, a further word stands that the group may go on with; or 0. */
static size_t find_late_word(const struct command_program *program, const char *const *words, size_t count,
			     char *const *argv)
{
	for (size_t i = 1 + count; argv[i] != NULL; i++) {
		if (argv[i][0] != '-')
			return i;
		if (strcmp(argv[i], "--") == 0)
			return 0;
		if (takes_next_word(program, words, count, argv[i]) && argv[i + 1] != NULL)
			i++;
	}
	return 0;
}

/* "jobs --base-url URL recent", as the programs before us had it, becomes "jobs recent --base-url URL". Gives how many
 * leading words there are then. */
static size_t gather_words(const struct command_program *program, char **argv, const char **words, size_t count)
{
	size_t used = 0;
	size_t at = 1;

	while (command_find(program, words, count, &used) == NULL && count > 0 && at != 0 &&
	       any_in_group(program, words, count)) {
		at = find_late_word(program, words, count, argv);
		if (at == 0)
			break;
		char *word = argv[at];
		memmove(&argv[2 + count], &argv[1 + count], (at - 1 - count) * sizeof(*argv));
		argv[1 + count] = word;
		words[count++] = word;
	}
	return count;
}

int command_parse(const struct command_program *program, int argc, char *const *argv, struct arena *arena,
		  struct command_call *call, struct buf *help, struct err *err)
{
	const char **words = arena_calloc(arena, (size_t)argc + 1, sizeof(*words));
	char **line = arena_calloc(arena, (size_t)argc + 1, sizeof(*line));
	size_t used = 0;

	*call = (struct command_call){.program = program, .arena = arena};
	memcpy(line, argv, (size_t)argc * sizeof(*line));
	size_t count = gather_words(program, line, words, leading_words(argc, argv, words));
	if (count == 0 && argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
		words[count] = "version";
	const struct command *c = command_find(program, words, words[count] != NULL ? 1 : count, &used);
	if (c == NULL)
		return parse_other(program, words, count, line[1 + count], call, help, err);

	call->command = c;
	if (c->absent != NULL)
		return err_set(err, ERR_UNSUPPORTED, "there is no '%s %s': %s", program->name, c->path, c->absent);
	call->options = arena_alloc(arena, c->options_size);
	call->args = arena_calloc(arena, (size_t)argc + 1, sizeof(*call->args));
	set_defaults(c, call->options);
	struct parser p = {.program = program, .command = c, .call = call, .rest = line + 1 + used};
	int rc = parse_words(&p, err);
	if (p.help != 0) {
		put_command_help(program, c, p.help == 'H', help);
		return COMMAND_HELP;
	}
	if (rc == 0)
		rc = check_count(&p, err);
	bool no_dashes = call->arg_count > 0 && c->args != NULL && strncmp(c->args, "-- ", 3) == 0;
	if (rc < 0 && no_dashes) /* a flag of what is to run, most likely */
		call->hint = arena_printf(arena, "%s %s [--flags] %s", program->name, c->path, c->args);
	else if (rc < 0 && call->hint == NULL)
		call->hint = arena_printf(arena, "see '%s %s --help'", program->name, c->path);
	return rc;
}

void command_explain(const struct command_program *program, const struct command *c, struct buf *out)
{
	put_command_help(program, c, true, out);
}

/* What the table of codes advises is meant for those who asked a server; about what went wrong right here we know
 * better. */
static const char *hint_for(const struct command_call *call, const struct err *err)
{
	const struct err_info *info = err_info(err->code);

	if (call->hint != NULL)
		return call->hint;
	if (call->request_id != NULL || call->command == NULL)
		return info->hint;
	if (info->exit_status == err_info(ERR_INVALID)->exit_status)
		return arena_printf(call->arena, "see '%s %s --help'", call->program->name, call->command->path);
	return info->http_status == err_info(ERR_INTERNAL)->http_status ? "'nimbus doctor' checks this machine"
									: info->hint;
}

/* A server may have said it, or an argument. */
static void say(const char *what, const char *text)
{
	autovar(buf) clean = {0};

	(void)terminal_clean(str_c(text), false, &clean);
	(void)fprintf(stderr, "%s: %s\n", what, clean.len > 0 ? clean.data : "");
}

/* Gives the exit status of the code. */
static int complain(const struct command_call *call, const struct err *err)
{
	const char *hint = hint_for(call, err);

	say("error", err->msg);
	if (hint[0] != '\0')
		say("hint", hint);
	if (call->request_id != NULL)
		say("request id", call->request_id);
	bool own = call->command != NULL && call->command->error_status != 0;
	return own ? call->command->error_status : err_info(err->code)->exit_status;
}

int command_main(const struct command_program *program, int argc, char *const *argv)
{
	autoptr(arena) arena = arena_new();
	struct command_call call = {0};
	autovar(buf) help = {0};
	struct err err = {0};

	int rc = command_parse(program, argc, argv, arena, &call, &help, &err);
	if (rc == COMMAND_HELP)
		rc = file_write_fd(STDOUT_FILENO, buf_str(&help), &err);
	else if (rc == 0)
		rc = call.command->run(&call, &err);
	return rc < 0 ? complain(&call, &err) : rc;
}
