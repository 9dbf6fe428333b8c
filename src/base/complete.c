#include "base/complete.h"

#include <ctype.h>
#include <string.h>

#include "base/listing.h"

/* The words before the one under the cursor, read as the parser would. */
struct line {
	const struct command_program *program;
	const char **plain; /* without flags */
	size_t count;
	const struct command *command;	      /* NULL: none yet */
	size_t args;			      /* plain words after its path */
	const struct command_option *waiting; /* its value is under the cursor */
	bool dashes;
};

void complete_offer(struct completion *c, const char *value, const char *about)
{
	if (!str_starts_with(str_c(value), c->begun))
		return;
	for (size_t i = 0; i < c->count; i++) {
		if (strcmp(c->items[i].value + strlen(c->before), value) == 0)
			return;
	}
	struct completion_item *items = arena_calloc(c->arena, c->count + 1, sizeof(*items));
	if (c->count > 0)
		memcpy(items, c->items, c->count * sizeof(*items));
	items[c->count++] = (struct completion_item){
		.value = arena_printf(c->arena, "%s%s", c->before, value),
		.about = about != NULL ? arena_strdup(c->arena, about) : NULL,
	};
	c->items = items;
}

/* --- what stands before --- */

static void each_command(const struct line *l,
			 void (*fn)(const struct line *l, const struct command *c, const char *title,
				    struct completion *to),
			 struct completion *to)
{
	for (size_t t = 0; t < l->program->table_count; t++) {
		const struct command_table *table = l->program->tables[t];
		for (size_t i = 0; i < table->count; i++) {
			if (!table->commands[i]->hidden)
				fn(l, table->commands[i], table->title, to);
		}
	}
}

/* Of the command, or, while that is not named wholly, of the first of its group that has such a flag. */
static const struct command_option *find_option(const struct line *l, const char *word)
{
	const struct command_option *found = NULL;

	if (l->command != NULL)
		return command_find_option(l->command, word);
	for (size_t t = 0; t < l->program->table_count && found == NULL; t++) {
		const struct command_table *table = l->program->tables[t];
		for (size_t i = 0; i < table->count && found == NULL; i++) {
			if (command_in_group(table->commands[i], l->plain, l->count))
				found = command_find_option(table->commands[i], word);
		}
	}
	return found;
}

static void read_word(struct line *l, const char *word)
{
	if (l->waiting != NULL) {
		l->waiting = NULL;
	} else if (strcmp(word, "--") == 0) {
		l->dashes = true;
	} else if (!l->dashes && word[0] == '-' && word[1] != '\0') {
		const struct command_option *o = find_option(l, word);
		if (o != NULL && command_option_takes_word(o) && strchr(word, '=') == NULL)
			l->waiting = o;
	} else if (!l->dashes) {
		size_t used = 0;
		l->plain[l->count++] = word;
		l->command = command_find(l->program, l->plain, l->count, &used);
		l->args = l->count - used;
	}
}

/* --- what may follow --- */

static void offer_flag(const struct command_option *o, struct completion *to)
{
	if (!o->hidden)
		complete_offer(to, arena_printf(to->arena, "--%s", o->name), o->help);
}

static void offer_flags(const struct line *l, struct completion *to)
{
	for (size_t i = 0; l->command != NULL && i < command_option_count(l->command); i++)
		offer_flag(command_option_at(l->command, i), to);
	complete_offer(to, "--help", "Explain it, with examples.");
	if (l->count == 0)
		complete_offer(to, "--version", "Print the version and the commit.");
}

static void offer_choices(const char *words, char separator, struct completion *to)
{
	for (struct str rest = str_c(words); rest.data != NULL;)
		complete_offer(to, arena_str(to->arena, str_cut(&rest, separator)), NULL);
}

static void offer_value(const struct command_option *o, struct completion *to)
{
	if (o->choices != NULL)
		offer_choices(o->choices, ' ', to);
	else
		to->placeholder = o->value;
}

/* "--json=id,sta": what stands behind the last comma, but for what is there already. */
static void offer_fields(const struct listing *listing, struct completion *to)
{
	struct str named = to->begun;

	while (named.len > 0 && named.data[named.len - 1] != ',')
		named.len--;
	to->before = arena_printf(to->arena, "%s%.*s", to->before, STR_ARG(named));
	to->begun = (struct str){to->begun.data + named.len, to->begun.len - named.len};
	for (size_t i = 0; i < listing->count; i++) {
		const struct listing_column *column = &listing->columns[i];
		bool there = false;
		for (struct str rest = named; rest.data != NULL && !there;)
			there = str_eq(str_cut(&rest, ','), str_c(column->field));
		if (!there)
			complete_offer(to, column->field, NULL);
	}
}

/* "--name=value" under the cursor. */
static void offer_joined(const struct line *l, const char *word, struct completion *to)
{
	const struct command_option *o = find_option(l, word);
	size_t head = (size_t)(strchr(word, '=') - word) + 1;

	if (o == NULL)
		return;
	to->before = arena_str(to->arena, (struct str){word, head});
	to->begun = str_c(word + head);
	if (l->command != NULL && l->command->listing != NULL && strcmp(o->name, "json") == 0)
		offer_fields(l->command->listing, to);
	else
		offer_value(o, to);
}

static void offer_next_word(const struct line *l, const struct command *c, const char *title, struct completion *to)
{
	struct str rest = str_c(c->path);
	struct str word = {0};

	if (!command_in_group(c, l->plain, l->count))
		return;
	for (size_t i = 0; i <= l->count && rest.data != NULL; i++)
		word = i < l->count ? (str_cut(&rest, ' '), word) : str_cut(&rest, ' ');
	if (word.len > 0)
		complete_offer(to, arena_str(to->arena, word), rest.data == NULL ? c->summary : title);
}

/* "[ID...]" becomes "ID": the argument of that number, or the last where it may come again. */
static const char *argument_name(const char *args, size_t index, struct arena *arena)
{
	static const char frame[] = "[].";

	for (struct str rest = str_c(args); rest.data != NULL; index--) {
		struct str token = str_cut(&rest, ' ');
		bool again = token.len > 3 && memmem(token.data, token.len, "...", 3) != NULL;
		if (index > 0 && !again)
			continue;
		while (token.len > 0 && strchr(frame, token.data[0]) != NULL)
			token = (struct str){token.data + 1, token.len - 1};
		while (token.len > 0 && strchr(frame, token.data[token.len - 1]) != NULL)
			token.len--;
		return token.len > 0 && token.data[0] != '-' ? arena_str(arena, token) : NULL;
	}
	return NULL;
}

static void offer_argument(const struct line *l, struct completion *to)
{
	const char *name = l->command->args != NULL ? argument_name(l->command->args, l->args, to->arena) : NULL;

	if (name != NULL && islower((unsigned char)name[0]))
		offer_choices(name, '|', to);
	else
		to->placeholder = name;
}

/* "help jobs submit" explains what stands behind it. */
static void skip_help(struct line *l)
{
	if (l->count == 0 || strcmp(l->plain[0], "help") != 0 || l->command != NULL)
		return;
	size_t used = 0;
	l->plain++;
	l->count--;
	l->command = command_find(l->program, l->plain, l->count, &used);
	l->args = l->count - used;
}

void complete(const struct command_program *program, const char *const *words, size_t count, struct arena *arena,
	      struct completion *ret)
{
	struct line l = {.program = program, .plain = arena_calloc(arena, count + 1, sizeof(*l.plain))};
	const char *word = count > 0 ? words[count - 1] : "";

	*ret = (struct completion){.arena = arena, .before = "", .begun = str_c(word)};
	for (size_t i = 0; i + 1 < count; i++)
		read_word(&l, words[i]);
	bool flag = word[0] == '-' && l.waiting == NULL && !l.dashes;
	if (l.waiting != NULL) {
		offer_value(l.waiting, ret);
	} else if (l.dashes) {
		ret->placeholder = "FILE"; /* a command of somebody else's */
	} else if (flag && strchr(word, '=') != NULL) {
		offer_joined(&l, word, ret);
	} else if (flag) {
		offer_flags(&l, ret);
	} else {
		if (l.count == 0)
			complete_offer(ret, "help", "Explain a command or a topic.");
		each_command(&l, offer_next_word, ret);
		skip_help(&l);
		each_command(&l, offer_next_word, ret);
		if (l.command != NULL)
			offer_argument(&l, ret);
	}
}
