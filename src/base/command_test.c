#include "base/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"

struct shared {
	bool json;
};

struct options {
	struct shared shared;
	const char *image;
	struct option_texts env;
	int64_t limit;
	int64_t wait;
	bool follow;
	const char *fields;
	const char *colour;
};

static int do_nothing(struct command_call *call, struct err *err)
{
	(void)call;
	(void)err;
	return 0;
}

static const struct command_option shared_options[] = {
	{"json", 'j', OPTION_FLAG, offsetof(struct shared, json), .help = "Print JSON."},
};
static const struct command_option options[] = {
	{"image", 'i', OPTION_TEXT, offsetof(struct options, image), .value = "NAME", .help = "The image."},
	{"env", 'e', OPTION_TEXTS, offsetof(struct options, env), .value = "N=V", .help = "A variable."},
	{"limit", 'n', OPTION_INT, offsetof(struct options, limit), .value = "N", .help = "How many.", .min = 1,
	 .max = 200, .otherwise = 20},
	{"wait", 0, OPTION_SECONDS, offsetof(struct options, wait), .value = "S", .help = "How long."},
	{"follow", 'f', OPTION_FLAG, offsetof(struct options, follow), .help = "Follow."},
	{"fields", 'F', OPTION_MAYBE, offsetof(struct options, fields), .value = "LIST", .help = "Only these."},
	{"colour", 0, OPTION_TEXT, offsetof(struct options, colour), .value = "WHEN", .help = "When.",
	 .choices = "auto always never"},
	{"cmd", 0, OPTION_TEXT, offsetof(struct options, image), .value = "X", .help = "Old.", .hidden = true},
};

#define OPTIONS                                                                           \
	.options = options, .option_count = ARRAY_LEN(options), .shared = shared_options, \
	.shared_count = ARRAY_LEN(shared_options), .options_size = sizeof(struct options), .run = do_nothing

static const struct command rows[] = {
	{"jobs submit", "-- CMD ARGS", "Submit a job", "More.\n", "  nimbus jobs submit -- true\n", OPTIONS,
	 .max_args = SIZE_MAX},
	{"jobs show", "ID", "Show a job", NULL, NULL, OPTIONS, .min_args = 1, .max_args = 1},
	{"jobs", NULL, "Never found before its longer ones", NULL, NULL, OPTIONS, .hidden = true},
	{"up", NULL, "Start all", NULL, NULL, OPTIONS},
	{"version", NULL, "Say the version", NULL, NULL, OPTIONS},
	{"admin tokens list", NULL, "List tokens", NULL, NULL, OPTIONS},
	{"help colours", NULL, "A topic", NULL, NULL, OPTIONS},
	{.path = "report", .hidden = true, .absent = "it comes later"},
};
static const struct command *const commands[] = {&rows[0], &rows[1], &rows[2], &rows[3],
						 &rows[4], &rows[5], &rows[6], &rows[7]};
static const struct command_table table = {"Commands", commands, ARRAY_LEN(commands)};
static const struct command_table *const tables[] = {&table};
static const struct command_program program = {"nimbus", "Runs jobs.", tables, 1};

enum { WORDS = 32 };

struct parsed {
	struct arena *arena;
	struct command_call call;
	struct buf help;
	struct err err;
	int rc;
};

/* A line of words, at single spaces. */
static struct parsed parse(const char *line)
{
	struct parsed p = {.arena = arena_new()};
	char *argv[WORDS] = {0};
	int argc = 0;

	for (struct str rest = str_c(line); rest.data != NULL && argc < WORDS - 1;)
		argv[argc++] = arena_str(p.arena, str_cut(&rest, ' '));
	p.rc = command_parse(&program, argc, argv, p.arena, &p.call, &p.help, &p.err);
	return p;
}

static void parsed_fini(struct parsed *p)
{
	arena_free(p->arena);
	buf_fini(&p->help);
}
AUTOVAR_DEFINE(parsed)

static void flags_stand_anywhere(void **state)
{
	(void)state;
	static const char *const lines[] = {
		"nimbus jobs submit -j --image demo -e A=1 --env=B=2 -n5 --wait 2.5 -f x -- y -z --",
		"nimbus jobs submit x --env A=1 -jf -i demo --limit=5 -e B=2 --wait=2500ms -- y -z --",
	};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		autovar(parsed) p = parse(lines[i]);
		assert_int_equal(p.rc, 0);
		const struct options *o = p.call.options;
		assert_string_equal(p.call.command->path, "jobs submit");
		assert_true(o->shared.json && o->follow);
		assert_string_equal(o->image, "demo");
		assert_int_equal(o->env.count, 2);
		assert_string_equal(o->env.items[1], "B=2");
		assert_int_equal(o->limit, 5);
		assert_int_equal(o->wait, 2500 * NS_PER_MS);
		assert_int_equal(p.call.arg_count, 4);
		assert_int_equal(p.call.args_before_dashes, 1);
		assert_string_equal(p.call.args[3], "--");
	}
}

static void flags_may_stand_before_the_last_word(void **state)
{
	(void)state;
	static const char *const lines[] = {
		"nimbus admin --image demo -n 5 tokens list -f",
		"nimbus admin tokens --image=demo -n5 list -f",
		"nimbus admin -f --image demo tokens --limit 5 list",
	};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		autovar(parsed) p = parse(lines[i]);
		assert_int_equal(p.rc, 0);
		const struct options *o = p.call.options;
		assert_string_equal(p.call.command->path, "admin tokens list");
		assert_string_equal(o->image, "demo");
		assert_int_equal(o->limit, 5);
		assert_true(o->follow);
		assert_int_equal(p.call.arg_count, 0);
	}
}

static void a_value_may_be_left_out(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		const char *fields;
		size_t args;
	} cases[] = {
		{"nimbus jobs submit --fields x", "", 1}, {"nimbus jobs submit --fields=a,b x", "a,b", 1},
		{"nimbus jobs submit -Ff x", "", 1},	  {"nimbus admin --fields tokens list", "", 0},
		{"nimbus jobs submit x", NULL, 1},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(parsed) p = parse(cases[i].line);
		const struct options *o = p.call.options;
		assert_int_equal(p.rc, 0);
		assert_int_equal(p.call.arg_count, cases[i].args);
		if (cases[i].fields == NULL)
			assert_null(o->fields);
		else
			assert_string_equal(o->fields, cases[i].fields);
	}
}

static void what_another_program_had_is_named(void **state)
{
	(void)state;
	autovar(parsed) p = parse("nimbus report cache --cache-url http://x --top");

	assert_int_equal(p.rc, -ERR_UNSUPPORTED);
	assert_string_equal(p.err.msg, "there is no 'nimbus report': it comes later");
}

static void what_is_not_given_has_its_default(void **state)
{
	(void)state;
	autovar(parsed) p = parse("nimbus jobs show 7");
	const struct options *o = p.call.options;

	assert_int_equal(p.rc, 0);
	assert_int_equal(o->limit, 20);
	assert_null(o->image);
	assert_int_equal(p.call.args_before_dashes, 1);
}

static void mistakes_say_what_was_meant(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		const char *message;
		const char *hint;
	} cases[] = {
		{"nimbus jbos submit", "no command 'jbos submit'", "did you mean 'nimbus jobs submit'?"},
		{"nimbus job", "no command 'job'", "did you mean 'nimbus jobs'?"},
		{"nimbus upp", "no command 'upp'", "did you mean 'nimbus up'?"},
		{"nimbus zzzzzz", "no command 'zzzzzz'", "'nimbus --help' lists the commands"},
		{"nimbus help colour", "no command 'colour'", "did you mean 'nimbus help colours'?"},
		{"nimbus help admin tokens lsit", "no command", "did you mean 'nimbus admin tokens list'?"},
		{"nimbus admin", "'admin' alone does nothing", "one of: admin tokens list"},
		{"nimbus admin --image demo tokens lsit", "no command 'admin",
		 "did you mean 'nimbus admin tokens list'?"},
		{"nimbus admin --image demo", "flags come after the command: '--image'", "lists the commands"},
		{"nimbus admin --json -- tokens list", "flags come after the command: '--json'", "lists the commands"},
		{"nimbus --json jobs show", "flags come after the command: '--json'", "lists the commands"},
		{"nimbus jobs show", "'jobs show' needs ID", "see 'nimbus jobs show --help'"},
		{"nimbus jobs show 1 2", "'jobs show' does not take '2'", "see 'nimbus jobs show --help'"},
		{"nimbus up --imaeg x", "'up' has no flag --imaeg", "did you mean --image?"},
		{"nimbus up -x", "'up' has no flag -x", "see 'nimbus up --help'"},
		{"nimbus up --json=1", "--json takes no value", "see"},
		{"nimbus up --image", "--image needs a value: --image NAME", "see"},
		{"nimbus up -n 0", "--limit: '0' is not a whole number from 1 to 200", "see"},
		{"nimbus up --wait 1x", "--wait: '1x' is not a time", "see"},
		{"nimbus up --wait -1", "--wait: '-1' is not a time", "see"},
		{"nimbus up --colour allways", "--colour 'allways' is none of: auto always never; did you mean always?",
		 "see"},
		{"nimbus up --wait nan", "--wait: 'nan' is not a time", "see"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(parsed) p = parse(cases[i].line);
		assert_true(p.rc < 0);
		assert_int_equal(err_info(p.rc)->exit_status, 2);
		if (strstr(p.err.msg, cases[i].message) == NULL || strstr(p.call.hint, cases[i].hint) == NULL)
			fail_msg("%s: %s (%s)", cases[i].line, p.err.msg, p.call.hint);
	}
}

static void help_is_made_from_the_rows(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		const char *holds;
		const char *lacks;
	} cases[] = {
		{"nimbus", "jobs submit", "Never found"},
		{"nimbus -h", "  up                     Start all\n", "--image"},
		{"nimbus help", "Commands:", "--image"},
		{"nimbus admin --help", "admin tokens list", "jobs submit"},
		{"nimbus jobs submit --help", "examples:\n  nimbus jobs submit -- true\n", "--cmd"},
		{"nimbus help jobs submit", "More.", "--cmd"},
		{"nimbus jobs show -h", "  -n, --limit N               How many.\n", "examples:"},
		{"nimbus jobs show -h", "  -F, --fields[=LIST]         Only these.\n", NULL},
		{"nimbus jobs show --bad -h", "-j, --json", NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(parsed) p = parse(cases[i].line);
		if (i < ARRAY_LEN(cases) - 1)
			assert_int_equal(p.rc, COMMAND_HELP);
		else
			assert_true(p.rc < 0); /* a mistake before it */
		if (p.rc == COMMAND_HELP && strstr(p.help.data, cases[i].holds) == NULL)
			fail_msg("%s: %s", cases[i].line, p.help.data);
		if (p.rc == COMMAND_HELP && cases[i].lacks != NULL)
			assert_null(strstr(p.help.data, cases[i].lacks));
	}
}

static void the_version_may_be_asked_for_as_a_flag(void **state)
{
	(void)state;
	static const char *const lines[] = {"nimbus --version", "nimbus -V", "nimbus version"};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		autovar(parsed) p = parse(lines[i]);
		assert_int_equal(p.rc, 0);
		assert_string_equal(p.call.command->path, "version");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flags_stand_anywhere),
		cmocka_unit_test(flags_may_stand_before_the_last_word),
		cmocka_unit_test(a_value_may_be_left_out),
		cmocka_unit_test(what_another_program_had_is_named),
		cmocka_unit_test(what_is_not_given_has_its_default),
		cmocka_unit_test(mistakes_say_what_was_meant),
		cmocka_unit_test(help_is_made_from_the_rows),
		cmocka_unit_test(the_version_may_be_asked_for_as_a_flag),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
