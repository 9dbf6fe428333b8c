/*
 * nimbus rootfs build | activate | list | verify | gc: the images that jobs run in, made from rootfs.yaml.
 */
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/listing.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "base/yaml.h"
#include "cli/commands.h"
#include "model/settings.h"
#include "role/role.h"
#include "rootfs/build.h"
#include "rootfs/config.h"
#include "rootfs/store.h"

struct rootfs_options {
	const char *config;
	const char *output_dir;
	const char *data_dir;
	struct option_texts versions;
	bool set_default;
	bool rollback;
	bool dry_run;
	struct output_flags output;
};

/* One call: the configuration, and the folder that it builds into. */
struct images {
	struct rootfs_config config;
	char *config_dir;
	struct rootfs_store store;
};

static void images_fini(struct images *i)
{
	free(i->config_dir);
	rootfs_store_fini(&i->store);
}
AUTOVAR_DEFINE(images)

static int read_config(struct command_call *call, struct images *i, struct err *err)
{
	const struct rootfs_options *o = call->options;
	const char *path = o->config != NULL ? o->config : "rootfs.yaml";
	autovar(buf) text = {0};

	int rc = file_read(AT_FDCWD, path, YAML_SIZE_MAX, &text, err);
	if (rc < 0) {
		call->hint = "name the configuration with --config FILE; 'nimbus rootfs build --help' has an example";
		return rc;
	}
	rc = rootfs_config_parse(buf_str(&text), path, call->arena, &i->config, err);
	if (rc < 0) {
		call->hint = "docs/rootfs.md has every key";
		return rc;
	}
	autofree char *copy = xstrdup(path);
	i->config_dir = xstrdup(dirname(copy));
	return 0;
}

/* Where the machine with that data directory keeps its images. The caller frees. */
static int find_assets(const char *data_dir, char **ret, struct err *err)
{
	autovar(role) role = {0};
	struct agent_settings agent = {0};

	int rc = role_open(&(struct role_flags){.data_dir = data_dir}, true, &role, err);
	if (rc == 0)
		rc = config_load(role.source, &agent_config, &agent, err);
	if (rc < 0)
		return rc;
	*ret = agent.assets_dir != NULL ? xstrdup(agent.assets_dir) : xasprintf("%s/assets", role.data_dir);
	config_unload(&agent_config, &agent);
	return 0;
}

/* A flag says where, or else the configuration. The caller frees. */
static int find_folder(const struct rootfs_options *o, const struct images *i, char **ret, struct err *err)
{
	const char *dir = o->output_dir != NULL ? o->output_dir : i->config.output_dir;

	if (o->data_dir != NULL && o->output_dir != NULL)
		return err_set(err, ERR_INVALID, "--data and --output-dir both say where the images are: give one");
	if (o->data_dir != NULL)
		return find_assets(o->data_dir, ret, err);
	*ret = o->output_dir != NULL || dir[0] == '/' ? xstrdup(dir) : xasprintf("%s/%s", i->config_dir, dir);
	return 0;
}

/* `reads`: the command is about what the configuration says, and not only about what is in the folder. */
static int images_open(struct command_call *call, bool change, bool reads, struct images *i, struct err *err)
{
	const struct rootfs_options *o = call->options;
	bool told_where = o->data_dir != NULL || o->output_dir != NULL;
	autofree char *path = NULL;
	int rc = 0;

	if (reads || o->config != NULL || !told_where)
		rc = read_config(call, i, err);
	if (rc == 0)
		rc = find_folder(o, i, &path, err);
	if (rc == 0)
		rc = rootfs_store_open(path, change, &i->store, err);
	if (rc == -ERR_NOT_FOUND && call->hint == NULL)
		call->hint = "run 'nimbus rootfs build' first";
	return rc;
}

/* --- build --- */

struct building {
	const char *version;
	struct progress bar;
	bool shows_bar;
};

static void end_bar(struct building *b)
{
	if (b->shows_bar)
		progress_end(&b->bar);
	b->shows_bar = false;
}

static void say(void *ctx, const char *step)
{
	struct building *b = ctx;

	end_bar(b);
	(void)fprintf(stderr, "%s: %s\n", b->version, step);
}

static void show_progress(void *ctx, int64_t done, int64_t total)
{
	struct building *b = ctx;

	if (!b->shows_bar)
		progress_begin(&b->bar, b->version, total > 0 ? (uint64_t)total : 0, /* quiet */ false);
	b->shows_bar = true;
	progress_at(&b->bar, (uint64_t)done);
}

static int build_one(struct images *i, const struct rootfs_version *v, struct js *built, struct err *err)
{
	struct building b = {.version = v->name};
	struct js *manifest = NULL;

	if (v->base_url != NULL && v->sha256 == NULL)
		(void)fprintf(stderr, "%s: no sha256 for its base_url: what comes is taken on trust\n", v->name);
	int rc = rootfs_build(
		&(struct build_opts){
			.version = v,
			.config_dir = i->config_dir,
			.store = &i->store,
			.say = say,
			.progress = show_progress,
			.ctx = &b,
		},
		&manifest, err);
	end_bar(&b);
	if (rc == 0)
		js_push(built, manifest);
	return rc;
}

static const struct listing_column built_columns[] = {
	{"NAME", "name"}, {"SHA256", "sha256"}, {"SIZE", "size"}, {"ROOTFS ID", "rootfs_id"}};
static const struct listing built_listing = {
	.id = "sha256", .columns = built_columns, .count = ARRAY_LEN(built_columns)};

static int build_chosen(struct images *i, const struct option_texts *chosen, struct js *built, struct err *err)
{
	int rc = 0;

	for (size_t n = 0; rc == 0 && chosen->count == 0 && n < i->config.version_count; n++)
		rc = build_one(i, &i->config.versions[n], built, err);
	for (size_t n = 0; rc == 0 && n < chosen->count; n++) {
		const struct rootfs_version *v = NULL;
		rc = rootfs_config_find(&i->config, chosen->items[n], &v, err);
		if (rc == 0)
			rc = build_one(i, v, built, err);
	}
	return rc;
}

/* The first build of the default version makes it active; later ones only when they are asked to. */
static int activate_default(struct images *i, const struct rootfs_options *o, struct err *err)
{
	const char *name = o->versions.count == 1 ? o->versions.items[0] : i->config.default_version;

	if (!o->set_default) {
		name = i->config.default_version;
		if (name == NULL || rootfs_store_has_current(&i->store))
			return 0;
		int rc = rootfs_store_activate(&i->store, name, NULL);
		return rc < 0 ? 0 : rc; /* not among those that were built */
	}
	if (name == NULL)
		return err_set(err, ERR_INVALID,
			       "--set-default: name one --version, or a default_version in the configuration");
	int rc = rootfs_store_activate(&i->store, name, err);
	return rc < 0 ? rc : 0;
}

/* What a build cannot do on this host is said at level debug. */
static int take_log_level(struct err *err)
{
	const char *name = getenv("NIMBUS_LOG_LEVEL");
	enum log_level level = LOG_LEVEL_INFO;

	int rc = name != NULL ? log_level_parse(str_c(name), &level, err) : 0;
	if (rc < 0)
		return err_wrap(err, "NIMBUS_LOG_LEVEL");
	log_set_role("rootfs");
	log_set_level(level);
	return 0;
}

static int run_build(struct command_call *call, struct err *err)
{
	const struct rootfs_options *o = call->options;
	autovar(images) i = {.store = {.fd = -1, .lock_fd = -1, .place = {.fd = -1}}};
	autoptr(js) built = js_new_array();

	int rc = take_log_level(err);
	if (rc == 0)
		rc = images_open(call, true, true, &i, err);
	if (rc == 0)
		rc = build_chosen(&i, &o->versions, built, err);
	if (rc == 0)
		rc = activate_default(&i, o, err);
	return rc < 0 ? rc : print_listing(&built_listing, &o->output, built, err);
}

/* --- the others --- */

static int run_activate(struct command_call *call, struct err *err)
{
	const struct rootfs_options *o = call->options;
	autovar(images) i = {.store = {.fd = -1, .lock_fd = -1, .place = {.fd = -1}}};

	if (o->rollback == (call->arg_count > 0))
		return err_set(err, ERR_INVALID, "name the version to activate, or --rollback");
	int rc = images_open(call, true, false, &i, err);
	if (rc < 0)
		return rc;
	if (o->rollback)
		return rootfs_store_rollback(&i.store, err);
	rc = rootfs_store_activate(&i.store, call->args[0], err);
	if (rc == -ERR_NOT_FOUND)
		call->hint = "build it first: nimbus rootfs build --version NAME";
	return rc < 0 ? rc : 0;
}

static void put_state(const struct js *row, struct buf *out)
{
	if (js_bool(js_get(row, "active"), false))
		buf_puts(out, "active");
	else
		buf_puts(out, js_bool(js_get(row, "previous"), false) ? "previous" : "-");
}

static void put_digest(const struct js *row, struct buf *out)
{
	buf_printf(out, "%.12s", js_text(js_get(row, "sha256"), "-"));
}

static void put_mib(const struct js *row, struct buf *out)
{
	buf_printf(out, "%.1f MiB", (double)js_int(js_get(row, "size"), 0) / 1048576);
}

static void put_verity(const struct js *row, struct buf *out)
{
	buf_printf(out, "%.12s", js_text(js_get(row, "verity_root"), "none"));
}

static const struct listing_column list_columns[] = {
	{"NAME", "name"},
	{"STATE", "active", .put = put_state},
	{"SHA256", "sha256", .put = put_digest},
	{"SIZE", "size", .put = put_mib},
	{"VERITY", "verity_root", .put = put_verity},
	{"BASE", "base"},
	{"DESCRIPTION", "description"},
};
static const struct listing list_listing = {
	.id = "name",
	.columns = list_columns,
	.count = ARRAY_LEN(list_columns),
	.none = "no image yet: 'nimbus rootfs build' makes them",
};

static int run_list(struct command_call *call, struct err *err)
{
	const struct rootfs_options *o = call->options;
	autovar(images) i = {.store = {.fd = -1, .lock_fd = -1, .place = {.fd = -1}}};
	autoptr(js) rows = NULL;

	int rc = images_open(call, false, false, &i, err);
	if (rc == 0)
		rc = rootfs_store_list(&i.store, &rows, err);
	return rc == 0 ? print_listing(&list_listing, &o->output, rows, err) : rc;
}

static const struct listing_column verify_columns[] = {
	{"NAME", "name"}, {"SHA256", "sha256", .put = put_digest}, {"OK", "ok"}, {"PROBLEM", "problem"}};
static const struct listing verify_listing = {
	.id = "name", .columns = verify_columns, .count = ARRAY_LEN(verify_columns)};

static int run_verify(struct command_call *call, struct err *err)
{
	const struct rootfs_options *o = call->options;
	autovar(images) i = {.store = {.fd = -1, .lock_fd = -1, .place = {.fd = -1}}};
	autoptr(js) rows = NULL;
	size_t bad = 0;

	int rc = images_open(call, false, false, &i, err);
	if (rc == 0)
		rc = rootfs_store_verify(&i.store, call->arg_count > 0 ? call->args[0] : NULL, &rows, err);
	if (rc == 0)
		rc = print_listing(&verify_listing, &o->output, rows, err);
	if (rc < 0)
		return rc;
	for (size_t n = 0; n < js_len(rows); n++)
		bad += !js_bool(js_get(js_at(rows, n), "ok"), false);
	if (bad == 0)
		return 0;
	call->hint = "build it again: nimbus rootfs build --version NAME";
	return err_set(err, ERR_CONFLICT, "%zu of %zu images are damaged", bad, js_len(rows));
}

static void put_what(const struct js *row, struct buf *out)
{
	const char *digest = js_text(js_get(row, "sha256"), NULL);
	const char *name = js_text(js_get(row, "name"), NULL);

	if (name != NULL)
		buf_puts(out, name);
	else
		buf_printf(out, "%.12s", digest != NULL ? digest : "-");
}

static const struct listing_column gc_columns[] = {{"WHAT", "name", .put = put_what},
						   {"SHA256", "sha256", .put = put_digest},
						   {"BYTES", "bytes"},
						   {"KEPT BECAUSE", "kept"}};
static const struct listing gc_listing = {
	.id = "sha256", .columns = gc_columns, .count = ARRAY_LEN(gc_columns), .none = "nothing to remove"};

static int run_gc(struct command_call *call, struct err *err)
{
	const struct rootfs_options *o = call->options;
	autovar(images) i = {.store = {.fd = -1, .lock_fd = -1, .place = {.fd = -1}}};
	autoptr(js) rows = NULL;

	int rc = images_open(call, true, true, &i, err);
	if (rc == 0)
		rc = rootfs_store_gc(&i.store, &i.config, o->dry_run, &rows, err);
	return rc == 0 ? print_listing(&gc_listing, &o->output, rows, err) : rc;
}

/* --- the rows --- */

#define OPTION(long_name, short_name, kind, member, ...)                                                   \
	{                                                                                                  \
		long_name, short_name, OPTION_##kind, offsetof(struct rootfs_options, member), __VA_ARGS__ \
	}
#define CONFIG_OPTIONS                                                                                    \
	OPTION("config", 'c', TEXT, config, .value = "FILE", .help = "The configuration (rootfs.yaml)."), \
		OPTION("output-dir", 0, TEXT, output_dir, .value = "DIR",                                 \
		       .help = "Instead of the configuration's output_dir."),                             \
		OPTION("data", 'd', TEXT, data_dir, .value = "DIR",                                       \
		       .help = "The images of the machine with this data directory.")
#define PRINTING OUTPUT_ROWS(struct rootfs_options, output), LISTING_ROWS(struct rootfs_options, output)

static const struct command_option build_options[] = {
	CONFIG_OPTIONS,
	OPTION("version", 0, TEXTS, versions, .value = "NAME", .help = "Only this one; may be given again."),
	OPTION("set-default", 0, FLAG, set_default, .help = "Then activate it, or the default_version."),
	PRINTING,
};
static const struct command_option activate_options[] = {
	CONFIG_OPTIONS,
	OPTION("rollback", 0, FLAG, rollback, .help = "What was active before is active again."),
};
static const struct command_option list_options[] = {CONFIG_OPTIONS, PRINTING};
static const struct command_option gc_options[] = {
	CONFIG_OPTIONS,
	OPTION("dry-run", 'n', FLAG, dry_run, .help = "Only say what would go."),
	PRINTING,
};

#define ROWS(table) .options = (table), .option_count = ARRAY_LEN(table), .options_size = sizeof(struct rootfs_options)

const struct command rootfs_build_command = {
	.path = "rootfs build",
	.listing = &built_listing,
	.summary = "Build the images that a rootfs.yaml describes",
	.about = "Each from a base (an ext4 or squashfs image, a tar, a folder, or a debootstrap recipe, which needs "
		 "root)\n"
		 "and overlays over it, as a squashfs with its dm-verity tree. The same inputs give the same bytes.\n"
		 "What is built takes the version's name at once; 'activate' makes it the one of jobs that name "
		 "none.\n\n"
		 "  rootfs:\n"
		 "    output_dir: ./images          # the assets folder of the machine, or a folder to copy there\n"
		 "    default_version: dev\n"
		 "    versions:\n"
		 "      - name: dev\n"
		 "        base_url: https://example.com/rootfs-dev.ext4\n"
		 "        sha256: 64 digits\n"
		 "        overlay_dir: ./overlays/dev\n"
		 "      - name: debian\n"
		 "        debootstrap: {suite: bookworm, packages: [git, make, gcc]}\n",
	.examples = "  nimbus rootfs build\n"
		    "  nimbus rootfs build --config rootfs.yaml\n"
		    "  nimbus rootfs build --config rootfs.yaml --version dev --set-default\n"
		    "  nimbus rootfs build --data /var/lib/nimbus\n",
	.run = run_build,
	ROWS(build_options),
};

const struct command rootfs_activate_command = {
	.path = "rootfs activate",
	.args = "VERSION",
	.summary = "Make a version the one of jobs that name no image",
	.about = "By one rename. Jobs that run keep the image that they started with.\n",
	.examples = "  nimbus rootfs activate ci\n"
		    "  nimbus rootfs verify ci && nimbus rootfs activate ci\n"
		    "  nimbus rootfs activate --rollback --data /var/lib/nimbus\n",
	.max_args = 1,
	.run = run_activate,
	ROWS(activate_options),
};

const struct command rootfs_list_command = {
	.path = "rootfs list",
	.listing = &list_listing,
	.summary = "List the images that are built",
	.examples = "  nimbus rootfs list\n"
		    "  nimbus rootfs list --json\n"
		    "  nimbus rootfs list --config ./rootfs.yaml\n"
		    "  nimbus rootfs list --data /var/lib/nimbus\n",
	.run = run_list,
	ROWS(list_options),
};

const struct command rootfs_verify_command = {
	.path = "rootfs verify",
	.listing = &verify_listing,
	.args = "[VERSION]",
	.summary = "Read every byte of the images and compare digest, hash tree and manifest",
	.about = "Exit 1 where one is damaged.\n",
	.examples = "  nimbus rootfs verify\n"
		    "  nimbus rootfs verify ci --data /var/lib/nimbus\n"
		    "  nimbus rootfs verify ci || nimbus rootfs activate --rollback\n",
	.max_args = 1,
	.run = run_verify,
	ROWS(list_options),
};

const struct command rootfs_gc_command = {
	.path = "rootfs gc",
	.listing = &gc_listing,
	.summary = "Remove images that nobody uses",
	.about = "Versions that the configuration no longer has, images that were built anew, and what broken builds "
		 "left.\n"
		 "Never what is active, was active before, or is open in a VM.\n",
	.examples = "  nimbus rootfs gc --dry-run\n"
		    "  nimbus rootfs gc\n"
		    "  nimbus rootfs gc --config ./rootfs.yaml --data /var/lib/nimbus\n",
	.run = run_gc,
	ROWS(gc_options),
};
