#include "base/complete.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/listing.h"

struct options {
	const char *image;
	const char *when;
	bool follow;
};

static const struct command_option options[] = {
	{"image", 'i', OPTION_TEXT, offsetof(struct options, image), .value = "IMAGE", .help = "The image."},
	{"color", 0, OPTION_TEXT, offsetof(struct options, when), .value = "WHEN", .help = "When.",
	 .choices = "auto always never"},
	{"follow", 'f', OPTION_FLAG, offsetof(struct options, follow), .help = "Follow."},
	{"old", 0, OPTION_FLAG, offsetof(struct options, follow), .help = "Old.", .hidden = true},
};

#define OPTIONS .options = options, .option_count = ARRAY_LEN(options)

static const struct listing_column columns[] = {{"ID", "id"}, {"STATE", "state"}, {"REASON", "state"}, {"S", "size"}};
static const struct listing listing = {.id = "id", .columns = columns, .count = ARRAY_LEN(columns)};
static const struct command_option list_options[] = {
	{"json", 'j', OPTION_MAYBE, offsetof(struct options, when), .value = "FIELDS", .help = "JSON."},
};

static const struct command rows[] = {
	{"jobs submit", "-- CMD ARGS", "Submit a job", OPTIONS},
	{"jobs show", "ID", "Show a job", OPTIONS},
	{"jobs cancel", "ID...", "Cancel jobs", OPTIONS},
	{"simulate", "queued|completed", "Post an event", OPTIONS},
	{"secret", NULL, "Not shown", .hidden = true},
	{"help topics", NULL, "Say what there is"},
	{"list", NULL, "List", .options = list_options, .option_count = 1, .listing = &listing},
	{"tell", NULL, "Tell", .options = list_options, .option_count = 1},
};
static const struct command *const commands[] = {&rows[0], &rows[1], &rows[2], &rows[3],
						 &rows[4], &rows[5], &rows[6], &rows[7]};
static const struct command_table table = {"Commands", commands, ARRAY_LEN(commands)};
static const struct command_table *const tables[] = {&table};
static const struct command_program program = {"nimbus", "Runs jobs.", tables, 1};

enum { WORDS = 16 };

/* The values with spaces between, then "<PLACEHOLDER>". */
static void completed(const char *line, struct arena *arena, struct buf *out)
{
	const char *words[WORDS];
	struct completion c;
	size_t count = 0;

	for (struct str rest = str_c(line); rest.data != NULL;)
		words[count++] = arena_str(arena, str_cut(&rest, ' '));
	complete(&program, words, count, arena, &c);
	for (size_t i = 0; i < c.count; i++)
		buf_printf(out, "%s%s", i > 0 ? " " : "", c.items[i].value);
	if (c.placeholder != NULL)
		buf_printf(out, "<%s>", c.placeholder);
}

static void the_table_says_what_may_follow(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		const char *wanted;
	} cases[] = {
		{"", "help jobs simulate list tell"},
		{"j", "jobs"},
		{"jobs ", "submit show cancel"},
		{"jobs s", "submit show"},
		{"jobs show ", "<ID>"},
		{"jobs show 7 ", ""},
		{"jobs cancel 7 8 ", "<ID>"},
		{"jobs submit ", ""},
		{"jobs submit -- ", "<FILE>"},
		{"jobs submit -- --col", "<FILE>"},
		{"jobs show --", "--image --color --follow --help"},
		{"jobs show --f", "--follow"},
		{"jobs show --image ", "<IMAGE>"},
		{"jobs show -i ", "<IMAGE>"},
		{"jobs --image x show ", "<ID>"},
		{"jobs --image ", "<IMAGE>"},
		{"jobs show --image=", "<IMAGE>"},
		{"jobs show --color a", "auto always"},
		{"jobs show --color=a", "--color=auto --color=always"},
		{"jobs show --unknown=a", ""},
		{"jobs show --follow ", "<ID>"},
		{"simulate ", "queued completed"},
		{"simulate q", "queued"},
		{"help ", "topics jobs simulate help list tell"},
		{"help jobs c", "cancel"},
		{"-", "--help --version"},
		{"list --json=", "--json=id --json=state --json=size"},
		{"list --json=s", "--json=state --json=size"},
		{"list --json=state,", "--json=state,id --json=state,size"},
		{"list --json=state,id,s", "--json=state,id,size"},
		{"list --json=odd,i", "--json=odd,id"},
		{"list --json ", ""},
		{"tell --json=", "<FIELDS>"},
		{"secret ", ""},
		{"nothing such ", ""},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autoptr(arena) arena = arena_new();
		autovar(buf) out = {0};
		completed(cases[i].line, arena, &out);
		if (strcmp(out.len > 0 ? out.data : "", cases[i].wanted) != 0)
			fail_msg("'%s': %s", cases[i].line, out.len > 0 ? out.data : "nothing");
	}
}

static void what_is_known_elsewhere_is_added(void **state)
{
	(void)state;
	autoptr(arena) arena = arena_new();
	static const char *const words[] = {"jobs", "show", "--image=de"};
	struct completion c;

	complete(&program, words, ARRAY_LEN(words), arena, &c);
	complete_offer(&c, "demo", "a small one");
	complete_offer(&c, "alpine", NULL);
	complete_offer(&c, "demo", "again");
	assert_int_equal(c.count, 1);
	assert_string_equal(c.items[0].value, "--image=demo");
	assert_string_equal(c.items[0].about, "a small one");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_says_what_may_follow),
		cmocka_unit_test(what_is_known_elsewhere_is_added),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
