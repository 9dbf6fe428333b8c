#include "admin/void_leases.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/commands.h"
#include "base/file.h"
#include "base/mem.h"
#include "role/role.h"
#include "store/dsn.h"
#include "store/migrate.h"

/* More than a job's fence, or an id, can have grown between a backup and its restore. */
#define FENCE_GAP (INT64_C(1) << 32)
#define ID_GAP INT64_C(1000000)
#define VERSION_GAP INT64_C(1000)

/* --- the database --- */

static int count_into(struct sql_tx *tx, const char *text, int64_t *ret, struct err *err)
{
	int r = sql_get_i64(tx, text, SQL_NO_ARGS, ret, err);

	return r < 0 ? r : 0;
}

static int void_fn(struct sql_tx *tx, void *ctx, struct err *err)
{
	/* Every job's row first: whoever still writes waits, and finds its lease gone. An expiry long ago leaves the
	 * rest to the control plane, which ends such leases as it ends all: counted, with the attempt's log sealed. */
	static const struct {
		const char *text;
		int64_t gap;
	} steps[] = {
		{"UPDATE job SET fence = fence + $1", FENCE_GAP},
		{"UPDATE lease SET expires_at = 0, stage = $1", 2 /* confirmed: an attempt that may have written */},
		{"UPDATE sequence SET value = value + $1 WHERE name <> 'generation'", ID_GAP},
		{"UPDATE agent SET token_version = token_version + $1 WHERE token_version > 0", VERSION_GAP},
		{"DELETE FROM plane_key WHERE at >= $1", 0},
	};
	struct voided *v = ctx;
	int r = count_into(tx, "SELECT COUNT(*) FROM lease", &v->leases, err);

	if (r == 0)
		r = count_into(tx, "SELECT COUNT(*) FROM agent WHERE token_version > 0", &v->agents, err);
	if (r == 0)
		r = count_into(tx, "SELECT COUNT(*) FROM job_secret", &v->secret_env, err);
	for (size_t i = 0; i < ARRAY_LEN(steps) && r >= 0; i++)
		r = sql_exec(tx, steps[i].text, SQL_ARGS(sql_i64(steps[i].gap)), NULL, err);
	if (r < 0)
		return r;
	return sql_get_i64(tx,
			   "INSERT INTO sequence (name, value) VALUES ('generation', 1)"
			   " ON CONFLICT (name) DO UPDATE SET value = sequence.value + 1 RETURNING value",
			   SQL_NO_ARGS, &v->generation, err);
}

/* --- the logs --- */

struct attempt {
	int64_t job_id;
	int64_t attempt;
};

/* 1: the job's next run would write into it. */
static int is_ahead(struct sql_tx *tx, void *ctx, struct err *err)
{
	const struct attempt *a = ctx;
	int64_t one = 0;

	return sql_get_i64(tx,
			   "SELECT 1 FROM job WHERE id = $1 AND (attempt < $2 OR (attempt = $2"
			   " AND state IN ('queued', 'parked')))",
			   SQL_ARGS(sql_i64(a->job_id), sql_i64(a->attempt)), &one, err);
}

/* JOB-ATTEMPT.seg; attempt 0 is of no run. */
static bool parse_name(const char *name, struct attempt *ret)
{
	struct str rest = str_c(name);
	struct str job = str_cut(&rest, '-');

	if (rest.data == NULL || !str_ends_with(rest, STR(".seg")))
		return false;
	rest.len -= strlen(".seg");
	return str_to_i64(job, "job", 1, INT64_MAX, &ret->job_id, NULL) == 0 &&
	       str_to_i64(rest, "attempt", 1, INT64_MAX, &ret->attempt, NULL) == 0;
}

static void close_dir(DIR **dir)
{
	if (*dir != NULL)
		closedir(*dir);
}

static int trim_folder(struct sql *sql, int parent, const char *name, unsigned depth, int64_t *count, struct err *err)
{
	__attribute__((cleanup(close_dir))) DIR *dir = NULL;
	autoclose fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = 0;

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (dir == NULL)
		return err_sys(err, "open folder %s of the logs", name);
	(void)fd_take(&fd);
	for (struct dirent *entry = readdir(dir); entry != NULL && r >= 0; entry = readdir(dir)) {
		struct attempt a;
		if (entry->d_name[0] == '.')
			continue;
		if (depth > 0) {
			r = trim_folder(sql, dirfd(dir), entry->d_name, depth - 1, count, err);
			continue;
		}
		if (!parse_name(entry->d_name, &a))
			continue;
		r = sql_read(sql, is_ahead, &a, err);
		if (r > 0 && unlinkat(dirfd(dir), entry->d_name, 0) != 0)
			r = err_sys(err, "remove %s of the logs", entry->d_name);
		*count += r > 0;
	}
	return r < 0 ? r : 0;
}

int void_leases(struct sql *sql, int segments_fd, struct voided *ret, struct err *err)
{
	struct voided v = {0};
	int r = sql_migrate(sql, "control", err);

	/* The logs first: run again after a crash, this does the same. */
	if (r == 0 && segments_fd >= 0)
		r = trim_folder(sql, segments_fd, ".", 2, &v.attempts, err); /* ORG/BUCKET/ */
	if (r == 0)
		r = sql_write(sql, void_fn, &v, err);
	if (r < 0)
		return r;
	*ret = v;
	return 0;
}

/* --- the command --- */

struct void_options {
	struct role_flags role;
	bool yes;
};

static int open_segments(const struct role *role, int *ret_fd, struct err *err)
{
	struct logging_settings settings = {0};
	int r = config_load(role->source, &logging_config, &settings, err);

	if (r < 0)
		return r;
	autofree char *path = settings.storage_path != NULL ? xasprintf("%s/segments", settings.storage_path)
							    : xasprintf("%s/logs/segments", role->data_dir);
	config_unload(&logging_config, &settings);
	return access(path, F_OK) == 0 ? dir_open(path, ret_fd, err) : 0;
}

static int run_on(const char *url, const struct role *role, struct err *err)
{
	autoptr(sql) sql = NULL;
	autoclose segments_fd = -1;
	struct voided v = {0};
	int r = open_segments(role, &segments_fd, err);

	if (r == 0)
		r = sql_open(&(struct sql_opts){.dsn = url, .connections = 1}, &sql, err);
	if (r == 0)
		r = void_leases(sql, segments_fd, &v, err);
	if (r < 0)
		return r;
	(void)printf("generation %" PRId64 ": %" PRId64 " leases are void, %" PRId64 " agents need a new token "
		     "('nimbus auth --agent-id NAME'), lines of %" PRId64 " attempts were dropped\n",
		     v.generation, v.leases, v.agents, v.attempts);
	return 0;
}

static int run(struct command_call *call, struct err *err)
{
	const struct void_options *o = call->options;
	struct control_settings settings = {0};
	autovar(role) role = {0};
	int r;

	if (!o->yes) {
		call->hint = "stop every role first, then say --yes";
		return err_set(err, ERR_INVALID, "this ends every lease of the database: jobs that run are run again");
	}
	r = role_open(&o->role, false, &role, err);
	if (r == 0)
		r = config_load(role.source, &control_config, &settings, err);
	if (r < 0)
		return r;
	autofree char *file = xasprintf("%s/control/control.db", role.data_dir);
	if (settings.database_url == NULL && access(file, F_OK) != 0)
		r = err_sys(err, "no database: open %s", file);
	else
		r = run_on(settings.database_url != NULL ? settings.database_url : file, &role, err);
	config_unload(&control_config, &settings);
	return r;
}

static const struct command_option options[] = {
	{"yes", 'y', OPTION_FLAG, offsetof(struct void_options, yes), .help = "The roles are stopped; do it."},
};

const struct command void_leases_command = {
	.path = "admin void-leases",
	.summary = "After a database was restored by its own tools: end what it still believes to run",
	.about = "'nimbus admin restore' does this itself. After pg_restore or a PITR of PostgreSQL, and before the "
		 "roles\n"
		 "start: leases are over (their jobs run again, or are dead after their last attempt), fences and ids "
		 "jump so\n"
		 "that none comes twice, agents need new tokens, and log lines of attempts that the database has not "
		 "begun are\n"
		 "dropped from the data directory.\n",
	.examples = "  nimbus admin void-leases --yes\n"
		    "  nimbus admin void-leases --yes --env-file /etc/nimbus/nimbus.env\n"
		    "  NIMBUS_DATABASE_URL=postgresql://nimbus@db/nimbus nimbus admin void-leases --yes --data "
		    "/var/lib/nimbus\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = role_options,
	.shared_count = ROLE_OPTION_COUNT,
	.options_size = sizeof(struct void_options),
	.run = run,
};
