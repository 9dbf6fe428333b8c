#include "role/role.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "role/sign.h"

const struct command_option role_options[ROLE_OPTION_COUNT] = {
	{"data", 'd', OPTION_TEXT, offsetof(struct role_flags, data_dir), .value = "DIR",
	 .help = "Data directory (NIMBUS_DATA_DIR; as root /var/lib/nimbus)."},
	{"env-file", 0, OPTION_TEXT, offsetof(struct role_flags, env_file), .value = "FILE",
	 .help = "Further variables, one NAME=value a line."},
};

void role_fini(struct role *r)
{
	config_unload(&common_config, &r->common);
	config_source_free(TAKE(r->source));
	free(TAKE(r->data_dir));
	free(TAKE(r->env_file));
}

/* How the files are read. */
struct reading {
	const struct role_flags *flags;
	bool skip_unreadable;
	config_problem_fn *problem; /* or NULL */
	void *problem_ctx;
};

static int open_source(const struct reading *how, const char *data_dir, struct config_source **ret, struct err *err)
{
	const struct config_source_opts opts = {
		.known = settings_tables,
		.known_count = settings_table_count,
		.env_file = how->flags->env_file,
		.data_dir = data_dir,
		.skip_unreadable = how->skip_unreadable,
		.environ = environ,
		.problem = how->problem,
		.problem_ctx = how->problem_ctx,
	};

	return config_source_new(&opts, ret, err);
}

static char *absolute(const char *path)
{
	char here[PATH_MAX];

	if (path[0] == '/' || getcwd(here, sizeof(here)) == NULL)
		return xstrdup(path);
	return xasprintf("%s/%s", here, path);
}

static int find_data_dir(const struct role_flags *flags, const struct config_source *s, char **ret, struct err *err)
{
	const char *configured =
		flags->data_dir != NULL ? flags->data_dir : config_source_get(s, "NIMBUS_DATA_DIR", NULL);
	autofree char *dir = settings_data_dir(configured, geteuid() == 0, getenv("XDG_STATE_HOME"), getenv("HOME"));

	if (dir == NULL)
		return err_set(err, ERR_INVALID,
			       "nothing says where the data directory is: neither --data, "
			       "NIMBUS_DATA_DIR nor HOME");
	*ret = absolute(dir);
	return 0;
}

/* DATA/nimbus.env is one of the files, and where DATA is may stand in another: so it is read last, and counts as if it
 * were not. */
static int open_role(const struct reading *how, struct role *ret, struct err *err)
{
	const struct role_flags *flags = how->flags;
	autovar(role) r = {0};
	const char *origin = NULL;

	int rc = open_source(how, NULL, &r.source, err);
	if (rc == 0)
		rc = find_data_dir(flags, r.source, &r.data_dir, err);
	if (rc < 0)
		return rc;
	if (config_source_get(r.source, "NIMBUS_DATA_DIR", &origin) == NULL)
		origin = "default";
	rc = config_source_add_data(r.source, r.data_dir, err);
	if (rc < 0)
		return rc;
	config_source_override(r.source, "NIMBUS_DATA_DIR", r.data_dir,
			       flags->data_dir != NULL ? "command line" : origin);
	r.env_file = flags->env_file != NULL ? absolute(flags->env_file) : NULL;
	*ret = TAKE_STRUCT(r);
	return 0;
}

int role_open(const struct role_flags *flags, bool skip_unreadable, struct role *ret, struct err *err)
{
	autovar(role) r = {0};

	int rc = open_role(&(struct reading){.flags = flags, .skip_unreadable = skip_unreadable}, &r, err);
	if (rc == 0)
		rc = config_load(r.source, &common_config, &r.common, err);
	/* Where the HTTP client looks; a shim inherits it. Before any thread starts. */
	if (rc == 0 && r.common.ca_bundle != NULL && setenv("NIMBUS_CA_BUNDLE", r.common.ca_bundle, 1) != 0)
		rc = err_sys(err, "set NIMBUS_CA_BUNDLE");
	if (rc < 0)
		return rc;
	*ret = TAKE_STRUCT(r);
	return 0;
}

int role_open_checked(const struct role_flags *flags, bool skip_unreadable, config_problem_fn *problem, void *ctx,
		      struct role *ret, struct err *err)
{
	const struct reading how = {
		.flags = flags,
		.skip_unreadable = skip_unreadable,
		.problem = problem,
		.problem_ctx = ctx,
	};

	return open_role(&how, ret, err);
}

static int start_log(const struct role *r, const struct config_table *table, struct err *err)
{
	enum log_level level = LOG_LEVEL_INFO;
	autovar(buf) later = {0};

	log_set_role(table->role);
	int rc = log_level_parse(str_c(r->common.log_level), &level, err);
	if (rc < 0)
		return err_wrap(err, "NIMBUS_LOG_LEVEL");
	log_set_level(level);
	config_reserved(r->source, table, &later);
	if (later.len > 0)
		log_warn("variables of a later version are set and not used", F("names", buf_str(&later)));
	return 0;
}

/* Until the role takes signals, one that asks it to read again what it is just reading waits instead of ending it. */
static void hold_reloads(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int role_start(const struct role_flags *flags, const struct config_table *table, void *settings, struct role *ret,
	       struct err *err)
{
	autovar(role) r = {0};

	hold_reloads();
	int rc = role_open(flags, false, &r, err);
	if (rc == 0)
		rc = start_log(&r, table, err);
	if (rc == 0)
		rc = listen_inherited(r.listen_fds, &r.listen_fd_count, err);
	if (rc == 0)
		rc = dir_make(r.data_dir, 0755, err);
	if (rc == 0)
		rc = config_load(r.source, table, settings, err);
	if (rc < 0)
		return rc;
	r.table = table;
	*ret = TAKE_STRUCT(r);
	return 0;
}

/* --- SIGHUP --- */

void role_on_reload(struct role *r, role_reload_fn *fn, void *ctx)
{
	assert(r->reload_count < ROLE_RELOADS_MAX);
	r->reloads[r->reload_count++] = (struct role_reload){fn, ctx};
}

/* What one SIGHUP did. */
struct reloaded {
	struct buf changed;
	struct buf waiting; /* names of variables that were changed and that only a start reads */
	bool failed;
};

static void add_words(struct buf *list, struct str words)
{
	if (words.len > 0)
		buf_printf(list, "%s%.*s", list->len > 0 ? "; " : "", STR_ARG(words));
}

static void reload_log_level(const struct common_settings *common, struct reloaded *r)
{
	enum log_level level = LOG_LEVEL_INFO;
	autofree char *before = xstrdup(log_level_now());

	if (log_level_parse(str_c(common->log_level), &level, NULL) < 0)
		return; /* the table lets nothing else through */
	log_set_level(level);
	if (strcmp(before, log_level_now()) != 0) {
		autofree char *words = xasprintf("log level %s", log_level_now());
		add_words(&r->changed, str_c(words));
	}
}

/* All functions, also behind one that failed: each has a thing of its own. */
static void reload_all(const struct role *role, const struct common_settings *common, const void *settings,
		       struct reloaded *r)
{
	reload_log_level(common, r);
	for (size_t i = 0; i < role->reload_count; i++) {
		autovar(buf) words = {0};
		struct err err = {0};
		if (role->reloads[i].fn(role->reloads[i].ctx, common, settings, &words, &err) < 0) {
			log_error("not read again: it stays as it was", F("error", &err));
			r->failed = true;
		} else {
			add_words(&r->changed, buf_str(&words));
		}
	}
}

static bool same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void add_waiting(const struct role *role, const struct config_source *now, const struct config_table *table,
			struct reloaded *r)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		const char *before = config_source_get(role->source, key->name, NULL);
		if ((key->flags & (CONFIG_RELOADABLE | CONFIG_RESERVED)) == 0 &&
		    !same(before, config_source_get(now, key->name, NULL)))
			buf_printf(&r->waiting, "%s%s", r->waiting.len > 0 ? " " : "", key->name);
	}
}

static void say(const struct reloaded *r)
{
	if (!r->failed || r->changed.len > 0)
		log_info("configuration read again",
			 F("changed", r->changed.len > 0 ? buf_str(&r->changed) : STR("nothing")));
	if (r->waiting.len > 0)
		log_warn("these count from the next start on ('nimbus upgrade' restarts without a pause)",
			 F("changed", buf_str(&r->waiting)));
}

void role_reload(struct role *r)
{
	const struct role_flags flags = {.data_dir = r->data_dir, .env_file = r->env_file};
	autoptr(config_source) source = NULL;
	struct reloaded reloaded = {0};
	struct err err = {0};

	int rc = open_source(&(struct reading){.flags = &flags}, r->data_dir, &source, &err);
	autofree void *settings = xcalloc(1, r->table->size);
	struct common_settings common = {0};
	if (rc == 0)
		rc = config_load(source, &common_config, &common, &err);
	if (rc == 0)
		rc = config_load(source, r->table, settings, &err);
	if (rc < 0) {
		log_error("configuration not read again: all stays as it was", F("error", &err));
	} else {
		reload_all(r, &common, settings, &reloaded);
		add_waiting(r, source, &common_config, &reloaded);
		add_waiting(r, source, r->table, &reloaded);
		say(&reloaded);
		config_unload(r->table, settings);
	}
	config_unload(&common_config, &common);
	buf_fini(&reloaded.changed);
	buf_fini(&reloaded.waiting);
}

void role_disk_failed(const struct err *err)
{
	log_error("the disk failed: this process ends rather than promise what it cannot keep; "
		  "look at the kernel's log and at the disk before it is started again",
		  F("error", err));
	_exit(EXIT_FAILURE);
}

/* No bound that a migration meets; one that stands still is a person's to judge. */
#define MIGRATION_STEP_MAX_NS (86400 * NS_PER_S)

void role_migrating(const char *set, int64_t version, const char *name)
{
	autofree char *words = name != NULL ? xasprintf("migrating %s: %04" PRId64 "_%s", set, version, name)
					    : xasprintf("migrated %s", set);

	log_debug("the schema of a database", F("step", words));
	sign_give(name != NULL ? MIGRATION_STEP_MAX_NS : 0, words);
}
