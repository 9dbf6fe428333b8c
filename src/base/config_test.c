#include "base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/secret.h"

struct settings {
	char *name;
	struct secret *key;
	int64_t port;
	bool flag;
	int64_t wait;
	int64_t size;
	double ratio;
	struct config_list labels;
	struct config_secrets older;
	char *url;
	char *database;
	char *mode;
};

#define KEY(variable, kind, member, ...)                                                                             \
	{                                                                                                            \
		.name = "NIMBUS_" variable, .type = (kind), .offset = offsetof(struct settings, member), __VA_ARGS__ \
	}

static const struct config_key keys[] = {
	KEY("NAME", CONFIG_TEXT, name, .help = "A name."),
	KEY("KEY", CONFIG_SECRET, key, .help = "A key."),
	KEY("PORT", CONFIG_INT, port, .fallback = "8000", .min = 1, .max = 65535, .help = "A port."),
	KEY("FLAG", CONFIG_BOOL, flag, .help = "A flag."),
	KEY("WAIT", CONFIG_DURATION, wait, .fallback = "1.5", .flags = CONFIG_RELOADABLE, .help = "A time."),
	KEY("SIZE", CONFIG_SIZE, size, .fallback = "64M", .help = "A size."),
	KEY("RATIO", CONFIG_REAL, ratio, .fallback = "0.1", .max = 1, .help = "A share."),
	KEY("LABELS", CONFIG_LIST, labels, .help = "Labels."),
	KEY("OLDER", CONFIG_SECRETS, older, .help = "Older keys."),
	KEY("URL", CONFIG_URL, url, .help = "An address."),
	KEY("DATABASE", CONFIG_DSN, database, .help = "A database."),
	KEY("MODE", CONFIG_TEXT, mode, .fallback = "auto", .choices = "auto on off", .help = "A mode."),
	{.name = "NIMBUS_LATER", .type = CONFIG_TEXT, .flags = CONFIG_RESERVED, .help = "Comes later."},
};
static const struct config_table table = {"test", keys, ARRAY_LEN(keys)};
static const struct config_table *const tables[] = {&table};

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/nimbus-config-XXXXXX");
	return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	return dir_remove(AT_FDCWD, folder, NULL);
}

static char *put(const char *name, const char *text)
{
	autofree char *path = xasprintf("%s/%s", folder, name);

	assert_int_equal(file_write_atomic(AT_FDCWD, path, str_c(text), 0600, NULL), 0);
	return TAKE(path);
}

static int open_source(const char *env_file, const char *const *environment, struct config_source **ret,
		       struct err *err)
{
	const struct config_source_opts opts = {
		.known = tables,
		.known_count = 1,
		.env_file = env_file,
		.environ = (char *const *)(uintptr_t)environment,
	};
	return config_source_new(&opts, ret, err);
}

/* The settings that one file gives. */
static int load_text(const char *text, struct settings *settings, struct err *err)
{
	autofree char *path = put("a.env", text);
	autoptr(config_source) s = NULL;

	int rc = open_source(path, NULL, &s, err);
	return rc < 0 ? rc : config_load(s, &table, settings, err);
}

static void every_type_is_read(void **state)
{
	(void)state;
	struct settings got = {0};
	struct err err = {0};

	if (load_text("NIMBUS_NAME=x\nNIMBUS_KEY=k\nNIMBUS_PORT=65535\nNIMBUS_FLAG=On\nNIMBUS_WAIT=0.25\n"
		      "NIMBUS_SIZE=2g\nNIMBUS_RATIO=0.5\nNIMBUS_LABELS= a, b ,,c\nOTHER=1\nNIMBUS_LATER=1\n",
		      &got, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(got.name, "x");
	assert_true(secret_equal(got.key, STR("k")));
	assert_int_equal(got.port, 65535);
	assert_true(got.flag);
	assert_int_equal(got.wait, 250 * NS_PER_MS);
	assert_int_equal(got.size, INT64_C(2) << 30);
	assert_true(got.ratio > 0.49 && got.ratio < 0.51);
	assert_int_equal(got.labels.count, 3);
	assert_string_equal(got.labels.items[1], "b");
	config_unload(&table, &got);
	assert_null(got.name);
}

static void defaults_and_empty_values(void **state)
{
	(void)state;
	struct settings got = {0};

	assert_int_equal(load_text("NIMBUS_PORT=\nNIMBUS_LABELS=[\"a b\", \"c\"]\n", &got, NULL), 0);
	assert_null(got.name);
	assert_null(got.key);
	assert_int_equal(got.port, 8000);
	assert_int_equal(got.wait, 1500 * NS_PER_MS);
	assert_int_equal(got.size, 64 << 20);
	assert_string_equal(got.labels.items[0], "a b");
	config_unload(&table, &got);
}

static void the_syntax_of_environment_files(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *value;
	} cases[] = {
		{"NIMBUS_NAME=plain\n", "plain"},
		{"  NIMBUS_NAME=  two words \t\r\n", "two words"},
		{"# note\n; note \\\nNIMBUS_NAME=commented\nNIMBUS_NAME=here", "here"},
		{"NIMBUS_NAME=a#b \"c\"", "a#b \"c\""},
		{"NIMBUS_NAME='single $x \\n'", "single $x \\n"},
		{"NIMBUS_NAME=\"say \\\"hi\\\" \\$x \\n\"", "say \"hi\" $x \\n"},
		{"NIMBUS_NAME=\"two\nlines\"", "two\nlines"},
		{"NIMBUS_NAME=one\\\ntwo", "onetwo"},
		{"NIMBUS_NAME=a\\ \\\\b", "a \\b"},
		{"NIMBUS_NAME='a '\"b\"c ", "a bc"},
		{"NIMBUS_NAME=first\nNIMBUS_NAME=last\n", "last"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct settings got = {0};
		struct err err = {0};
		if (load_text(cases[i].text, &got, &err) < 0)
			fail_msg("%s: %s", cases[i].text, err.msg);
		assert_string_equal(got.name, cases[i].value);
		config_unload(&table, &got);
	}
}

static void what_is_wrong_is_named(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {
		{"\nNIMBUS_PROT=1", "a.env:2: unknown variable NIMBUS_PROT; did you mean NIMBUS_PORT?"},
		{"NIMBUS_SOMETHING_ELSE=1", "a.env:1: unknown variable NIMBUS_SOMETHING_ELSE"},
		{"NIMBUS_NAME_FILE=x", "unknown variable NIMBUS_NAME_FILE"},
		{"no equals", "a.env:1: expected NAME=value"},
		{"=x", "a.env:1: expected NAME=value"},
		{"A=1\nNIMBUS_NAME='open\n\n", "a.env:2: a quote is opened and never closed"},
		{"NIMBUS_NAME=\xff", "a.env: is not UTF-8 text"},
		{"NIMBUS_PORT=0", "NIMBUS_PORT ("},
		{"NIMBUS_PORT=0", "0 is not from 1 to 65535"},
		{"NIMBUS_PORT=12x", "'12x' is not a whole number"},
		{"NIMBUS_FLAG=maybe", "'maybe' is not true or false"},
		{"NIMBUS_WAIT=nan", "'nan' is not a number of seconds"},
		{"NIMBUS_SIZE=9999999999G", "is not a size"},
		{"NIMBUS_SIZE=-1", "is not a size"},
		{"NIMBUS_RATIO=1.5", "1.5 is not from 0 to 1"},
		{"NIMBUS_LABELS=[1]", "is not a list"},
		{"NIMBUS_KEY_FILE=/nonexistent/secret", "NIMBUS_KEY_FILE"},
		{"NIMBUS_MODE=of", "'of' is not one of: auto on off"},
		{"NIMBUS_URL=u:hunter2@host", "a.env:1): is not an address like http://"},
		{"NIMBUS_URL=http://", "is not an address"},
		{"NIMBUS_URL=http:///path", "is not an address"},
		{"NIMBUS_URL='http://a b'", "is not an address"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct settings got = {0};
		struct err err = {0};
		assert_true(load_text(cases[i].text, &got, &err) < 0);
		if (strstr(err.msg, cases[i].message) == NULL)
			fail_msg("%s: %s", cases[i].text, err.msg);
	}
}

static void the_stronger_source_wins(void **state)
{
	(void)state;
	autofree char *named = put("named.env", "NIMBUS_NAME=file\nNIMBUS_PORT=1\nNIMBUS_WAIT=3\n");
	free(put("nimbus.env", "NIMBUS_NAME=data\nNIMBUS_PORT=2\nNIMBUS_WAIT=4\nNIMBUS_SIZE=5\n"));
	const char *environment[] = {"NIMBUS_PORT=7", "PATH=/bin", NULL};
	const struct config_source_opts opts = {
		.known = tables,
		.known_count = 1,
		.env_file = named,
		.data_dir = folder,
		.environ = (char *const *)(uintptr_t)environment,
	};
	autoptr(config_source) s = NULL;
	struct settings got = {0};

	assert_int_equal(config_source_new(&opts, &s, NULL), 0);
	config_source_override(s, "NIMBUS_NAME", "flag", "command line");
	assert_int_equal(config_load(s, &table, &got, NULL), 0);
	assert_string_equal(got.name, "flag");
	assert_int_equal(got.port, 7);
	assert_int_equal(got.wait, 3 * NS_PER_S);
	assert_int_equal(got.size, 5);
	config_unload(&table, &got);

	const char *origin = NULL;
	assert_string_equal(config_source_get(s, "NIMBUS_NAME", &origin), "flag");
	assert_string_equal(origin, "command line");
	assert_string_equal(config_source_get(s, "NIMBUS_PORT", &origin), "7");
	assert_string_equal(origin, "environment");
	assert_null(config_source_get(s, "NIMBUS_FLAG", NULL));
}

static void secrets_come_from_files_and_are_not_shown(void **state)
{
	(void)state;
	autofree char *secret = put("secret", "hunter2\n");
	autofree char *file = xasprintf("NIMBUS_KEY_FILE=%s", secret);
	const char *environment[] = {file, "NIMBUS_LATER=x", NULL};
	autoptr(config_source) s = NULL;
	struct settings got = {0};
	autovar(buf) shown = {0};
	autovar(buf) later = {0};

	assert_int_equal(open_source(NULL, environment, &s, NULL), 0);
	assert_int_equal(config_load(s, &table, &got, NULL), 0);
	assert_true(secret_equal(got.key, STR("hunter2")));
	config_unload(&table, &got);

	struct config_item item = config_item(s, &keys[1], &shown);
	assert_true(item.set && item.secret);
	assert_string_equal(item.origin, "environment");
	autofree char *place = xasprintf("(in %s)", secret);
	assert_string_equal(shown.data, place);
	config_reserved(s, &table, &later);
	assert_string_equal(later.data, "NIMBUS_LATER");
}

static void lists_of_secrets(void **state)
{
	(void)state;
	autofree char *path = put("older", "[\"one, two\", \"three\"]\n");
	autofree char *file = xasprintf("NIMBUS_OLDER_FILE=%s", path);
	const char *environment[] = {file, NULL};
	autoptr(config_source) s = NULL;
	struct settings got = {0};
	struct err err = {0};
	autovar(buf) shown = {0};

	assert_int_equal(open_source(NULL, environment, &s, NULL), 0);
	assert_int_equal(config_load(s, &table, &got, NULL), 0);
	assert_int_equal(got.older.count, 2);
	assert_true(secret_equal(got.older.items[0], STR("one, two")));
	config_unload(&table, &got);
	assert_int_equal(got.older.count, 0);

	free(put("older", "\n"));
	assert_int_equal(config_load(s, &table, &got, NULL), 0);
	assert_int_equal(got.older.count, 0);
	config_unload(&table, &got);

	assert_int_equal(load_text("NIMBUS_OLDER=a-b,c-d\n", &got, NULL), 0);
	assert_int_equal(got.older.count, 2);
	config_unload(&table, &got);
	assert_true(load_text("NIMBUS_OLDER='[\"hunter2'\n", &got, &err) < 0);
	assert_non_null(strstr(err.msg, "NIMBUS_OLDER"));
	assert_null(strstr(err.msg, "hunter2"));

	assert_true(config_item(s, &keys[8], &shown).secret);
	assert_null(strstr(shown.data, "one"));
}

static void a_secret_that_everybody_may_read_is_refused(void **state)
{
	(void)state;
	autofree char *secret = put("open", "hunter2\n");
	autofree char *file = xasprintf("NIMBUS_KEY_FILE=%s", secret);
	const char *environment[] = {file, NULL};
	autoptr(config_source) s = NULL;
	struct settings got = {0};
	struct err err = {0};

	assert_int_equal(open_source(NULL, environment, &s, NULL), 0);
	assert_int_equal(chmod(secret, 0644), 0);
	assert_true(config_load(s, &table, &got, &err) < 0);
	assert_non_null(strstr(err.msg, "NIMBUS_KEY_FILE"));
	assert_non_null(strstr(err.msg, "chmod"));
	assert_int_equal(chmod(secret, 0640), 0); /* a group's is how secrets reach containers */
	assert_int_equal(config_load(s, &table, &got, NULL), 0);
	config_unload(&table, &got);
}

static void values_are_shown_without_passwords(void **state)
{
	(void)state;
	static const struct {
		const char *variable; /* as it stands in the environment */
		size_t key;
		const char *shown;
	} cases[] = {
		{"NIMBUS_PORT=7", 2, "7"},
		{"NIMBUS_OTHER=7", 2, "8000"},
		{"NIMBUS_OTHER=7", 0, ""},
		{"NIMBUS_KEY=hunter2", 1, "(set)"},
		{"NIMBUS_NAME=a:b@c", 0, "a:b@c"},
		{"NIMBUS_NAME=redis://:hunter2@h:6379/0", 0, "redis://:***@h:6379/0"},
		{"NIMBUS_URL=https://u:hunter2@h/x?y=1", 9, "https://u:***@h/x?y=1"},
		{"NIMBUS_URL=https://h/@x", 9, "https://h/@x"},
		{"NIMBUS_DATABASE=postgresql+asyncpg://u:hun/te@r2@h:5/d?sslmode=a&sslpassword=hunter2", 10,
		 "postgresql+asyncpg://u:***@h:5/d?sslmode=a&sslpassword=***"},
		{"NIMBUS_DATABASE=postgresql://u@h/d", 10, "postgresql://u@h/d"},
		{"NIMBUS_DATABASE=postgresql://h/d?password=hunter2", 10, "postgresql://h/d?password=***"},
		{"NIMBUS_DATABASE=host=h password=hunter2", 10, "***"},
		{"NIMBUS_DATABASE=postgresql:u:hunter2@h/d", 10, "***"},
		{"NIMBUS_DATABASE=/var/lib/a.db", 10, "/var/lib/a.db"},
		{"NIMBUS_LATER=hunter2", 12, "(set)"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *environment[] = {cases[i].variable, NULL};
		autoptr(config_source) s = NULL;
		autovar(buf) shown = {0};
		/* "OTHER" is nobody's: it must not be known here. */
		if (strstr(environment[0], "OTHER") != NULL)
			environment[0] = NULL;
		assert_int_equal(open_source(NULL, environment, &s, NULL), 0);
		(void)config_item(s, &keys[cases[i].key], &shown);
		assert_string_equal(shown.data != NULL ? shown.data : "", cases[i].shown);
	}
}

static void collect(void *ctx, const struct err *err)
{
	struct buf *all = ctx;

	buf_printf(all, "%s\n", err->msg);
}

static void everything_that_is_wrong_is_said(void **state)
{
	(void)state;
	autofree char *path = put("bad.env", "NIMBUS_PROT=1\nno equals\nNIMBUS_PORT=x\nNIMBUS_FLAG=maybe\n"
					     "NIMBUS_NAME=good\nNIMBUS_LABLES=a\n");
	const char *environment[] = {"NIMBUS_WIAT=1", "NIMBUS_SIZE=big", NULL};
	autovar(buf) all = {0};
	const struct config_source_opts opts = {
		.known = tables,
		.known_count = 1,
		.env_file = path,
		.environ = (char *const *)(uintptr_t)environment,
		.problem = collect,
		.problem_ctx = &all,
	};
	static const char *const wanted[] = {
		"environment: unknown variable NIMBUS_WIAT; did you mean NIMBUS_WAIT?\n",
		"bad.env:1: unknown variable NIMBUS_PROT; did you mean NIMBUS_PORT?\n",
		"bad.env:2: expected NAME=value\n",
		"bad.env:6: unknown variable NIMBUS_LABLES; did you mean NIMBUS_LABELS?\n",
		"bad.env:3): 'x' is not a whole number\n",
		"bad.env:4): 'maybe' is not true or false\n",
		"NIMBUS_SIZE (environment): 'big' is not a size",
	};
	autoptr(config_source) s = NULL;
	struct err err = {0};

	assert_int_equal(config_source_new(&opts, &s, &err), 0);
	assert_string_equal(config_source_get(s, "NIMBUS_NAME", NULL), "good");
	config_check(s, &table, collect, &all);
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		if (strstr(all.data, wanted[i]) == NULL)
			fail_msg("%s: %s", wanted[i], all.data);
	}
	size_t lines = 0;
	for (size_t i = 0; i < all.len; i++)
		lines += all.data[i] == '\n' ? 1 : 0;
	assert_int_equal(lines, ARRAY_LEN(wanted));
}

static void the_reference_page(void **state)
{
	(void)state;
	autovar(buf) page = {0};

	config_document(&table, &page);
	assert_non_null(strstr(page.data, "| `NIMBUS_PORT` | `8000` | A port. |\n"));
	assert_non_null(strstr(page.data, "| `NIMBUS_KEY` | | A key. Secret; also as `NIMBUS_KEY_FILE`. |\n"));
	assert_non_null(strstr(page.data, "A time. Read again on SIGHUP."));
	assert_null(strstr(page.data, "LATER"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_is_read),
		cmocka_unit_test(defaults_and_empty_values),
		cmocka_unit_test(the_syntax_of_environment_files),
		cmocka_unit_test(what_is_wrong_is_named),
		cmocka_unit_test(the_stronger_source_wins),
		cmocka_unit_test(secrets_come_from_files_and_are_not_shown),
		cmocka_unit_test(lists_of_secrets),
		cmocka_unit_test(a_secret_that_everybody_may_read_is_refused),
		cmocka_unit_test(values_are_shown_without_passwords),
		cmocka_unit_test(everything_that_is_wrong_is_said),
		cmocka_unit_test(the_reference_page),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
