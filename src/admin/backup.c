/*
 * nimbus admin backup: the databases as of one moment each, then the logs, which therefore hold at least what the
 * databases know of; from a running system.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "admin/commands.h"
#include "admin/copy.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"
#include "role/role.h"
#include "store/backup.h"
#include "store/dsn.h"
#include "store/migrate.h"

#define DATABASE_TIMEOUT_NS (60 * NS_PER_S)

struct backup_options {
	struct role_flags role;
	bool with_secrets;
};

struct backup {
	struct role role;
	struct control_settings control;
	struct agent_settings agent;
	struct logging_settings logging;
	struct arena *arena;
	struct copy copy;
	struct manifest manifest;
	char *partial; /* what it is called until it is whole */
};

static void backup_fini(struct backup *b)
{
	copy_fini(&b->copy);
	config_unload(&control_config, &b->control);
	config_unload(&agent_config, &b->agent);
	config_unload(&logging_config, &b->logging);
	role_fini(&b->role);
	arena_free(b->arena);
	free(b->partial);
}
AUTOVAR_DEFINE(backup)

/* --- databases --- */

static int read_generation(struct sql_tx *tx, void *ctx, struct err *err)
{
	int64_t *generation = ctx;
	int r = sql_get_i64(tx, "SELECT value FROM sequence WHERE name = 'generation'", SQL_NO_ARGS, generation, err);

	return r < 0 ? r : 0;
}

static int ask(struct backup *b, const char *path, const char *set, int64_t *schema, struct err *err)
{
	autoptr(sql) sql = NULL;
	struct schema_status status = {0};
	int r = sql_open(&(struct sql_opts){.dsn = path, .connections = 1}, &sql, err);

	if (r == 0)
		r = sql_schema_status(sql, set, b->arena, &status, err);
	if (r < 0)
		return r;
	*schema = status.version;
	return strcmp(set, "control") == 0 && status.version > 0
		       ? sql_read(sql, read_generation, &b->manifest.generation, err)
		       : 0;
}

/* target: below the backup, and below a data directory. */
static int take_database(struct backup *b, const char *set, const char *url, const char *target, const char **ret_kind,
			 int64_t *schema, struct err *err)
{
	autofree char *usual = xasprintf("%s/%s", b->role.data_dir, target);
	autofree char *to = xasprintf("%s/%s", b->partial, target);
	autofree char *folder = xasprintf("%s/%s", b->partial, set);
	autovar(dsn) dsn = {0};
	int r = dsn_parse(str_c(url != NULL ? url : usual), &dsn, err);

	if (r < 0)
		return r;
	*ret_kind = dsn.kind == DSN_POSTGRESQL ? "postgresql" : access(dsn.path, F_OK) != 0 ? "none" : "sqlite";
	if (strcmp(*ret_kind, "sqlite") != 0)
		return 0;
	r = ask(b, dsn.path, set, schema, err);
	if (r == 0)
		r = dir_make(folder, 0700, err);
	if (r == 0)
		r = sql_backup(dsn.path, to, DATABASE_TIMEOUT_NS, err);
	return r < 0 ? r : copy_add(&b->copy, target, dsn.path, err);
}

static int take_databases(struct backup *b, struct err *err)
{
	struct manifest *m = &b->manifest;
	int r = take_database(b, "control", b->control.database_url, "control/control.db", &m->control,
			      &m->control_schema, err);

	return r < 0 ? r
		     : take_database(b, "agent", b->agent.state_database_url, "agent/agent.db", &m->agent,
				     &m->agent_schema, err);
}

/* --- files --- */

/* Lines are in their segments before they are acknowledged, so the journal in front of them is not needed. */
static int take_logs(struct backup *b, struct err *err)
{
	autofree char *usual = xasprintf("%s/logs", b->role.data_dir);
	autofree char *to = xasprintf("%s/logs", b->partial);
	const char *from = b->logging.storage_path != NULL ? b->logging.storage_path : usual;
	struct copy *c = &b->copy;
	struct copy logs = {.from_fd = -1, .to_fd = -1, .prefix = "logs/", .arena = c->arena};
	int r;

	if (access(from, F_OK) != 0)
		return 0;
	r = dir_make(to, 0700, err);
	if (r == 0)
		r = dir_open(from, &logs.from_fd, err);
	if (r == 0)
		r = dir_open(to, &logs.to_fd, err);
	/* One list: what there is goes on growing in the other struct. */
	logs.files = TAKE(c->files);
	logs.count = c->count;
	logs.cap = c->cap;
	logs.bytes = c->bytes;
	if (r == 0)
		r = copy_folder(&logs, "segments", NULL, err);
	if (r == 0)
		r = copy_file(&logs, "retention.json", err);
	c->files = TAKE(logs.files);
	c->count = logs.count;
	c->cap = logs.cap;
	c->bytes = logs.bytes;
	copy_fini(&logs);
	return r;
}

/* What is being written at this moment. */
static bool is_temporary(const char *name)
{
	return strstr(name, ".tmp-") != NULL;
}

static int take_secrets(struct backup *b, struct err *err)
{
	int r = copy_folder(&b->copy, "keys", is_temporary, err);

	if (r == 0)
		r = copy_folder(&b->copy, "secrets", is_temporary, err);
	return r < 0 ? r : copy_file(&b->copy, "nimbus.env", err);
}

static int write_manifest(struct backup *b, struct err *err)
{
	autovar(buf) text = {0};
	autovar(buf) digest = {0};
	struct sha256 hash;
	int r;

	b->manifest.files.items = b->copy.files;
	b->manifest.files.count = b->copy.count;
	manifest_encode(&b->manifest, &text);
	hash = crypto_sha256(buf_str(&text));
	encode_hex((struct str){(char *)hash.bytes, sizeof(hash.bytes)}, &digest);
	buf_putc(&digest, '\n');
	r = file_write_atomic(b->copy.to_fd, MANIFEST_FILE, buf_str(&text), 0600, err);
	return r < 0 ? r : file_write_atomic(b->copy.to_fd, MANIFEST_DIGEST_FILE, buf_str(&digest), 0600, err);
}

/* --- the whole --- */

static int open_backup(struct backup *b, const struct backup_options *o, const char *to, struct err *err)
{
	int r = role_open(&o->role, false, &b->role, err);

	if (r == 0)
		r = config_load(b->role.source, &control_config, &b->control, err);
	if (r == 0)
		r = config_load(b->role.source, &agent_config, &b->agent, err);
	if (r == 0)
		r = config_load(b->role.source, &logging_config, &b->logging, err);
	if (r < 0)
		return r;
	if (faccessat(AT_FDCWD, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return err_set(err, ERR_CONFLICT, "%s is there already: name a folder that is not", to);
	b->partial = xasprintf("%s.partial-%016" PRIx64, to, crypto_random_u64());
	r = dir_open(b->role.data_dir, &b->copy.from_fd, err);
	if (r == 0)
		r = dir_make(b->partial, 0700, err);
	return r < 0 ? r : dir_open(b->partial, &b->copy.to_fd, err);
}

static int take_all(struct backup *b, bool with_secrets, const char *to, struct err *err)
{
	int r = take_databases(b, err);

	if (r == 0)
		r = take_logs(b, err);
	if (r == 0 && with_secrets)
		r = take_secrets(b, err);
	if (r == 0)
		r = write_manifest(b, err);
	if (r == 0)
		r = copy_sync_folders(b->copy.to_fd, err);
	if (r == 0 && rename(b->partial, to) != 0)
		r = err_sys(err, "rename %s to %s", b->partial, to);
	return r < 0 ? r : file_sync_parent(AT_FDCWD, to, err);
}

static void say(const struct backup *b, bool with_secrets, const char *to)
{
	(void)printf("%s: %zu files, %" PRId64 " bytes; control %s, agent %s\n", to, b->copy.count, b->copy.bytes,
		     b->manifest.control, b->manifest.agent);
	if (!with_secrets)
		(void)fputs(
			"without keys and secrets: a restore makes new ones, and secret environment of waiting jobs "
			"cannot be opened then (--with-secrets)\n",
			stderr);
	if (strcmp(b->manifest.control, "postgresql") == 0 || strcmp(b->manifest.agent, "postgresql") == 0)
		(void)fputs("PostgreSQL is not in it: take that with its own tools just before (docs/operations.md)\n",
			    stderr);
}

static int run(struct command_call *call, struct err *err)
{
	const struct backup_options *o = call->options;
	autovar(backup) b = {
		.arena = arena_new(),
		.copy = {.from_fd = -1, .to_fd = -1},
		.manifest = {.format = MANIFEST_FORMAT,
			     .nimbus = NIMBUS_VERSION,
			     .made_at = clock_unix_ns(),
			     .with_secrets = o->with_secrets},
	};
	int r;

	b.copy.arena = b.arena;
	r = open_backup(&b, o, call->args[0], err);
	if (r == 0)
		r = take_all(&b, o->with_secrets, call->args[0], err);
	if (r < 0 && b.copy.to_fd >= 0)
		(void)!dir_remove(AT_FDCWD, b.partial, NULL);
	if (r == 0)
		say(&b, o->with_secrets, call->args[0]);
	return r;
}

static const struct command_option options[] = {
	{"with-secrets", 0, OPTION_FLAG, offsetof(struct backup_options, with_secrets),
	 .help = "Signing keys, sealing keys, DIR/secrets and DIR/nimbus.env too: keep such a backup as you keep "
		 "them."},
};

const struct command backup_command = {
	.path = "admin backup",
	.args = "FOLDER",
	.summary = "Copy databases and logs into a new folder, while the system runs",
	.about = "The folder appears when it is whole. It has a manifest with the SHA-256 of every file, which\n"
		 "'nimbus admin verify' checks. VMs, scratch disks and images are not in it.\n",
	.examples = "  nimbus admin backup /backups/nimbus-$(date +%F)\n"
		    "  nimbus admin backup /backups/new && nimbus admin verify /backups/new\n"
		    "  nimbus admin backup --with-secrets /backups/whole && tar -C /backups -czf whole.tgz whole\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct backup_options),
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
