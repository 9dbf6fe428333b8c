/*
 * nimbus admin verify and restore.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/commands.h"
#include "admin/copy.h"
#include "admin/void_leases.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"
#include "role/role.h"
#include "store/migrate.h"

enum { MANIFEST_MAX = 1 << 30, DIGEST_MAX = 256 };

/* --- checking --- */

static int read_manifest(int dirfd, struct arena *arena, struct manifest *ret, struct err *err)
{
	autovar(buf) text = {0};
	autovar(buf) digest = {0};
	autovar(buf) hex = {0};
	struct sha256 hash;
	int r = file_read(dirfd, MANIFEST_FILE, MANIFEST_MAX, &text, err);

	if (r < 0)
		return err_wrap(err, "not a whole backup");
	r = file_read(dirfd, MANIFEST_DIGEST_FILE, DIGEST_MAX, &digest, err);
	if (r < 0)
		return err_wrap(err, "not a whole backup");
	hash = crypto_sha256(buf_str(&text));
	encode_hex((struct str){(char *)hash.bytes, sizeof(hash.bytes)}, &hex);
	if (!str_eq(str_trim(buf_str(&digest)), buf_str(&hex)))
		return err_set(err, ERR_INVALID,
			       MANIFEST_FILE
			       " was changed or damaged: its digest is not the one in " MANIFEST_DIGEST_FILE);
	return manifest_decode(buf_str(&text), arena, ret, err);
}

static int check_schema(const char *set, int64_t schema, struct err *err)
{
	if (schema <= sql_schema_newest(set))
		return 0;
	return err_set(err, ERR_CONFLICT,
		       "the backup's %s database has schema %" PRId64 ", this nimbus knows %" PRId64
		       ": use the nimbus that made it, or a newer one",
		       set, schema, sql_schema_newest(set));
}

static int check_same(const struct manifest_file *want, const struct manifest_file *got, struct err *err)
{
	if (want->size != got->size)
		return err_set(err, ERR_INVALID, "%s is damaged: it has %" PRId64 " bytes, and had %" PRId64,
			       want->path, got->size, want->size);
	if (strcmp(want->sha256, got->sha256) != 0)
		return err_set(err, ERR_INVALID, "%s is damaged: its SHA-256 is not the manifest's", want->path);
	return 0;
}

/* All files, so that one call tells all that is wrong. */
static int check_files(int dirfd, const struct manifest *m, struct arena *arena, struct err *err)
{
	size_t bad = 0;

	for (size_t i = 0; i < m->files.count; i++) {
		struct manifest_file got = {0};
		struct err why = {0};
		int r = copy_digest(dirfd, m->files.items[i].path, arena, &got, &why);

		if (r == 0)
			r = check_same(&m->files.items[i], &got, &why);
		if (r < 0 && bad++ < 20)
			(void)fprintf(stderr, "%s\n", why.msg);
	}
	if (bad > 0)
		return err_set(err, ERR_INVALID, "the backup is damaged: %zu of %zu files are not as they were", bad,
			       m->files.count);
	return 0;
}

static int check_backup(int dirfd, struct arena *arena, struct manifest *ret, struct err *err)
{
	int r = read_manifest(dirfd, arena, ret, err);

	if (r == 0)
		r = check_schema("control", ret->control_schema, err);
	return r < 0 ? r : check_schema("agent", ret->agent_schema, err);
}

static int run_verify(struct command_call *call, struct err *err)
{
	autoptr(arena) arena = arena_new();
	autoclose dirfd = -1;
	struct manifest m = {0};
	char when[CLOCK_TEXT_SIZE];
	int r = dir_open(call->args[0], &dirfd, err);

	if (r == 0)
		r = check_backup(dirfd, arena, &m, err);
	if (r == 0)
		r = check_files(dirfd, &m, arena, err);
	if (r < 0)
		return r;
	(void)printf("%s is whole: made %s by nimbus %s, %zu files, %s secrets, control %s, agent %s\n", call->args[0],
		     clock_format(m.made_at, when), m.nimbus, m.files.count, m.with_secrets ? "with" : "without",
		     m.control, m.agent);
	return 0;
}

/* --- restoring --- */

struct restore_options {
	struct role_flags role;
};

struct restore {
	struct role role;
	struct arena *arena;
	struct copy copy;
	struct manifest manifest;
	char *partial;
	struct voided voided;
};

static void restore_fini(struct restore *x)
{
	copy_fini(&x->copy);
	role_fini(&x->role);
	arena_free(x->arena);
	free(x->partial);
}
AUTOVAR_DEFINE(restore)

static int check_empty(const char *path, struct err *err)
{
	DIR *dir = opendir(path);
	bool empty = true;

	if (dir == NULL)
		return errno == ENOENT ? 0 : err_sys(err, "open folder %s", path);
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
		empty = empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
	(void)closedir(dir);
	return empty ? 0
		     : err_set(err, ERR_CONFLICT, "%s is not empty: a restore goes into an empty data directory only",
			       path);
}

/* The mode that it had, and as root, to whom it belonged. */
static int give_file(int dirfd, const struct manifest_file *f, struct err *err)
{
	autoclose fd = openat(dirfd, f->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 && errno == ENOENT) /* lines of an attempt that is void */
		return 0;
	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open %s", f->path);
	bool keeps_owner = geteuid() != 0 || (st.st_uid == (uid_t)f->uid && st.st_gid == (gid_t)f->gid);
	if (keeps_owner && (st.st_mode & 07777) == ((mode_t)f->mode & 0777))
		return 0;
	if (!keeps_owner && fchown(fd, (uid_t)f->uid, (gid_t)f->gid) != 0)
		return err_sys(err, "give %s to uid %" PRId64, f->path, f->uid);
	if (fchmod(fd, (mode_t)f->mode & 0777) != 0 || fsync(fd) != 0)
		return err_sys(err, "set the mode of %s", f->path);
	return 0;
}

/* Where the path's folder of that depth ends; 0: it has none so deep. */
static size_t folder_len(const char *path, size_t depth)
{
	const char *at = path;

	while (depth > 0 && (at = strchr(at, '/')) != NULL)
		if (--depth > 0)
			at++;
	return at != NULL ? (size_t)(at - path) : 0;
}

/* Its folders hold nothing of anybody else. */
static int give_folder(int dirfd, const struct manifest_file *f, size_t depth, struct err *err)
{
	size_t len = folder_len(f->path, depth);
	autofree char *path = xasprintf("%.*s", (int)len, f->path);

	if (len == 0)
		return 0;
	return fchownat(dirfd, path, (uid_t)f->uid, (gid_t)f->gid, AT_SYMLINK_NOFOLLOW) == 0
		       ? 0
		       : err_sys(err, "give %s to uid %" PRId64, path, f->uid);
}

/* Tokens that the old system signed, those of its running jobs among them, are void: the first start makes a new key. A
 * control plane that joins others on PostgreSQL needs theirs. */
static bool is_voided(const struct restore *x, const struct manifest_file *f)
{
	return strcmp(x->manifest.control, "sqlite") == 0 && str_starts_with(str_c(f->path), STR("keys/"));
}

/* The digest is checked of what was written: a file that changes after `verify` does not slip in. */
static int bring_files(struct restore *x, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < x->manifest.files.count && r == 0; i++) {
		const struct manifest_file *f = &x->manifest.files.items[i];
		size_t before = x->copy.count;
		if (is_voided(x, f))
			continue;
		r = copy_file(&x->copy, f->path, err);
		if (r == 0 && x->copy.count == before)
			r = err_set(err, ERR_INVALID, "%s is missing in the backup", f->path);
		if (r == 0)
			r = check_same(f, &x->copy.files[before], err);
	}
	return r;
}

/* When all is written: who owns a folder can put links into it, and root would follow them. So the files come first,
 * then their folders, the deepest first: nothing is reached through a folder that was given away. */
static int give_all(const struct restore *x, struct err *err)
{
	const struct manifest *m = &x->manifest;
	size_t depth = 0;
	bool deeper = geteuid() == 0;
	int r = 0;

	for (size_t i = 0; i < m->files.count && r == 0; i++)
		if (!is_voided(x, &m->files.items[i]))
			r = give_file(x->copy.to_fd, &m->files.items[i], err);
	while (deeper) {
		deeper = false;
		depth++;
		for (size_t i = 0; i < m->files.count; i++)
			deeper = deeper || folder_len(m->files.items[i].path, depth) > 0;
	}
	for (; depth > 0 && r == 0; depth--)
		for (size_t i = 0; i < m->files.count && r == 0; i++)
			if (!is_voided(x, &m->files.items[i]))
				r = give_folder(x->copy.to_fd, &m->files.items[i], depth, err);
	return r;
}

static int void_database(struct restore *x, struct err *err)
{
	autofree char *path = xasprintf("%s/control/control.db", x->partial);
	autofree char *logs = xasprintf("%s/logs/segments", x->partial);
	autoptr(sql) sql = NULL;
	autoclose segments_fd = -1;
	int r = access(logs, F_OK) == 0 ? dir_open(logs, &segments_fd, err) : 0;

	if (r < 0 || strcmp(x->manifest.control, "sqlite") != 0)
		return r;
	r = sql_open(&(struct sql_opts){.dsn = path, .connections = 1}, &sql, err);
	return r < 0 ? r : void_leases(sql, segments_fd, &x->voided, err);
}

static int open_restore(struct restore *x, const struct restore_options *o, const char *from, struct err *err)
{
	int r = role_open(&o->role, false, &x->role, err);

	if (r == 0)
		r = check_empty(x->role.data_dir, err);
	if (r == 0)
		r = dir_open(from, &x->copy.from_fd, err);
	if (r == 0)
		r = check_backup(x->copy.from_fd, x->arena, &x->manifest, err);
	if (r < 0)
		return r;
	x->partial = xasprintf("%s.restore-%016" PRIx64, x->role.data_dir, crypto_random_u64());
	r = dir_make(x->partial, 0755, err);
	return r < 0 ? r : dir_open(x->partial, &x->copy.to_fd, err);
}

static int bring_all(struct restore *x, struct err *err)
{
	struct stat st;
	int r = bring_files(x, err);

	if (r == 0)
		r = void_database(x, err);
	if (r == 0)
		r = give_all(x, err);
	if (r == 0)
		r = copy_sync_folders(x->copy.to_fd, err);
	/* An empty folder that was there keeps its owner and mode. */
	if (r == 0 && stat(x->role.data_dir, &st) == 0 &&
	    ((geteuid() == 0 && fchown(x->copy.to_fd, st.st_uid, st.st_gid) != 0) ||
	     fchmod(x->copy.to_fd, st.st_mode & 07777) != 0))
		r = err_sys(err, "set owner and mode of %s", x->partial);
	if (r == 0 && rename(x->partial, x->role.data_dir) != 0)
		r = err_sys(err, "rename %s to %s", x->partial, x->role.data_dir);
	return r < 0 ? r : file_sync_parent(AT_FDCWD, x->role.data_dir, err);
}

static void say(const struct restore *x)
{
	const struct voided *v = &x->voided;

	(void)printf("%s: %zu files restored\n", x->role.data_dir, x->copy.count);
	if (strcmp(x->manifest.control, "sqlite") == 0)
		(void)printf("generation %" PRId64 ": %" PRId64 " leases are void, lines of %" PRId64
			     " attempts were dropped\n",
			     v->generation, v->leases, v->attempts);
	if (v->agents > 0)
		(void)printf("%" PRId64 " agents need a new token: nimbus auth --agent-id NAME\n", v->agents);
	if (!x->manifest.with_secrets && v->secret_env > 0)
		(void)printf("%" PRId64 " jobs wait with secret environment that nobody can open without the old keys: "
			     "cancel them and submit them again\n",
			     v->secret_env);
	if (strcmp(x->manifest.control, "postgresql") == 0)
		(void)puts("the control plane's database was PostgreSQL: restore it with its own tools, then run "
			   "'nimbus admin void-leases' before the roles start");
}

static int run_restore(struct command_call *call, struct err *err)
{
	autovar(restore) x = {.arena = arena_new(), .copy = {.from_fd = -1, .to_fd = -1}};
	int r;

	x.copy.arena = x.arena;
	r = open_restore(&x, call->options, call->args[0], err);
	if (r == 0)
		r = bring_all(&x, err);
	if (r < 0 && x.copy.to_fd >= 0)
		(void)!dir_remove(AT_FDCWD, x.partial, NULL);
	if (r == 0)
		say(&x);
	return r;
}

const struct command verify_command = {
	.path = "admin verify",
	.args = "FOLDER",
	.summary = "Check a backup, without restoring it",
	.about = "Every file against the manifest, the manifest against its digest, and the schemas against this "
		 "program.\n",
	.examples = "  nimbus admin verify /backups/nimbus-2026-11-21\n"
		    "  nimbus admin verify /backups/last || echo 'take another'\n"
		    "  for b in /backups/*; do nimbus admin verify $b; done\n",
	.min_args = 1,
	.max_args = 1,
	.run = run_verify,
};

const struct command restore_command = {
	.path = "admin restore",
	.args = "FOLDER",
	.summary = "Restore a backup into an empty data directory",
	.about = "What the system it came from has done since does not count: its leases are void (their jobs run "
		 "again, or\n"
		 "are dead after their last attempt), fences and ids jump so that none comes twice, signing keys are "
		 "replaced,\n"
		 "and agents with tokens of their own need new ones.\n",
	.examples = "  nimbus admin restore --data /var/lib/nimbus /backups/nimbus-2026-11-21\n"
		    "  nimbus admin verify /backups/last && nimbus admin restore --data ./again /backups/last\n"
		    "  nimbus admin restore --data ./look /backups/last && nimbus db status --data ./look\n",
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct restore_options),
	.min_args = 1,
	.max_args = 1,
	.run = run_restore,
};
