/*
 * What Nimbus keeps here: the data directory, secrets, images, databases, ports.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/databases.h"
#include "cli/doctor.h"
#include "net/tls.h"
#include "store/dsn.h"
#include "store/sql.h"
#include "vm/assets.h"

enum { TIGHT_MIB = 2048, IMAGE_DAYS = 180, CERTIFICATE_DAYS = 21, QUICK_CHECK_MIB = 2048, INODES_MIN = 10000 };
#define DAY_NS (INT64_C(86400) * NS_PER_S)

/* --- folders --- */

static const char *file_system(const char *path)
{
	static const struct {
		long magic;
		const char *name;
	} kinds[] = {
		{0xef53, "ext4"},
		{0x58465342, "xfs (files can share blocks)"},
		{0x9123683e, "btrfs (files can share blocks)"},
		{0x01021994, "tmpfs"},
		{0x794c7630, "overlay"},
		{0x6969, "nfs"},
	};
	struct statfs fs;

	if (statfs(path, &fs) != 0)
		return "unknown file system";
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if ((long)fs.f_type == kinds[i].magic)
			return kinds[i].name;
	}
	return "another file system";
}

static enum verdict look_data(struct doctor *d, struct finding *f)
{
	const char *path = d->session->role.data_dir;
	const char *kind = file_system(path);
	struct statvfs fs;
	autoclose fd = -1;
	struct err err = {0};
	uint64_t bytes = 0;

	if (access(path, F_OK) != 0) {
		f->fix = "nimbus doctor --fix, or nimbus up, which makes it too";
		say(f, "%s is not there yet", path);
		return CHECK_WARN;
	}
	f->fix = "run this as the user who runs 'nimbus up'";
	if (dir_open(path, &fd, &err) < 0 || disk_free(fd, &bytes, &err) < 0 || fstatvfs(fd, &fs) != 0) {
		say(f, "%s", err.msg);
		return CHECK_FAIL;
	}
	say(f, "%s on %s, %" PRIu64 " MiB free", path, kind, bytes >> 20);
	f->fix = "free some disk space (nimbus rootfs gc --dry-run shows old images), or choose another --data";
	bool few = fs.f_files > 0 && fs.f_favail < INODES_MIN;
	if (few)
		say(f, ", %llu files can still be made", (unsigned long long)fs.f_favail);
	if (bytes < (uint64_t)d->session->role.common.min_free_disk)
		return CHECK_FAIL;
	if (bytes >> 20 < TIGHT_MIB || few)
		return CHECK_WARN;
	f->fix = "put the data directory on a local disk: databases need its locks and syncs";
	return strcmp(kind, "nfs") == 0 ? CHECK_WARN : CHECK_OK;
}

static int mend_data(struct doctor *d, struct err *err)
{
	return access(d->session->role.data_dir, F_OK) == 0 ? 0 : dir_make(d->session->role.data_dir, 0755, err);
}

static enum verdict look_logs(struct doctor *d, struct finding *f)
{
	autofree char *usual = xasprintf("%s/logs", d->session->role.data_dir);
	const char *path = d->logging.storage_path != NULL ? d->logging.storage_path : usual;
	autoclose fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t bytes = 0;
	struct err err = {0};

	if (fd < 0) {
		say(f, "%s: %s", path, errno == ENOENT ? "made when the pipeline starts" : strerrordesc_np(errno));
		f->fix = "run this as the user who runs 'nimbus up'";
		return errno == ENOENT ? CHECK_OK : CHECK_WARN;
	}
	if (disk_free(fd, &bytes, &err) < 0) {
		say(f, "%s", err.msg);
		return CHECK_WARN;
	}
	say(f, "%s, %" PRIu64 " MiB free", path, bytes >> 20);
	f->fix = "nimbus help environment | grep RETENTION, or another NIMBUS_LOG_STORAGE_PATH";
	return bytes >> 20 < TIGHT_MIB ? CHECK_WARN : CHECK_OK;
}

/* --- secrets --- */

static const char *const secret_folders[] = {"secrets", "keys"};

/* Calls `fn` for each file in there that others may read. */
static size_t each_open_secret(struct doctor *d, void (*fn)(int dirfd, const char *name, void *ctx), void *ctx)
{
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_LEN(secret_folders); i++) {
		autofree char *path = xasprintf("%s/%s", d->session->role.data_dir, secret_folders[i]);
		DIR *dir = opendir(path);
		const struct dirent *e;
		while (dir != NULL && (e = readdir(dir)) != NULL) {
			struct stat st;
			if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode) ||
			    (st.st_mode & 077) == 0)
				continue;
			fn(dirfd(dir), e->d_name, ctx);
			count++;
		}
		if (dir != NULL)
			(void)closedir(dir);
	}
	return count;
}

static void name_secret(int dirfd, const char *name, void *ctx)
{
	struct finding *f = ctx;

	(void)dirfd;
	say(f, "%s%s", f->message.len > 0 ? ", " : "others may read: ", name);
}

static void close_secret(int dirfd, const char *name, void *ctx)
{
	struct err *err = ctx;

	if (fchmodat(dirfd, name, 0600, 0) != 0)
		(void)err_sys(err, "close %s to others", name);
}

static enum verdict look_secrets(struct doctor *d, struct finding *f)
{
	f->fix = "nimbus doctor --fix; then nimbus admin keys rotate, if somebody may have read them";
	if (each_open_secret(d, name_secret, f) > 0)
		return CHECK_FAIL;
	say(f, "closed to others");
	return CHECK_OK;
}

static int mend_secrets(struct doctor *d, struct err *err)
{
	struct err failed = {0};

	(void)each_open_secret(d, close_secret, &failed);
	return failed.code != 0 ? err_set(err, ERR_IO, "%s", failed.msg) : 0;
}

static enum verdict look_certificate(struct doctor *d, struct finding *f)
{
	const struct common_settings *common = &d->session->role.common;
	autoptr(tls) tls = NULL;
	struct err err = {0};

	if (common->tls_certificate == NULL) {
		say(f, "none: the servers speak plain HTTP");
		return CHECK_OK;
	}
	f->fix = "give a newer certificate under the same name, then send the roles SIGHUP";
	if (tls_open(common->tls_certificate, common->tls_key != NULL ? common->tls_key : "", &tls, &err) < 0) {
		say(f, "%s", err.msg);
		return CHECK_FAIL;
	}
	int64_t days = (tls_current(tls)->expires_at - clock_unix_ns()) / DAY_NS;
	say(f, "%s, good for %" PRId64 " days", common->tls_certificate, days);
	return days < CERTIFICATE_DAYS ? CHECK_WARN : CHECK_OK;
}

/* --- kernel and images --- */

/* The name of the file that stands behind it is its digest: the bytes must have it. */
static int verify(int folder, const char *name, int64_t *ret_age, struct err *err)
{
	autofree char *target = xcalloc(1, ASSETS_DIGEST_SIZE + 1);
	autovar(buf) found = {0};
	autoclose fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "open %s", name);
	*ret_age = clock_unix_ns() - st.st_mtim.tv_sec * NS_PER_S;
	if (readlinkat(folder, name, target, ASSETS_DIGEST_SIZE) <= 0)
		return 0; /* somebody's own file: nothing says what it should be */
	int rc = file_copy_fd(fd, -1, &found, NULL, err);
	if (rc == 0 && strcmp(found.data, target) != 0)
		rc = err_set(err, ERR_INVALID, "%s is damaged: its bytes are not those of its digest", name);
	return rc;
}

static enum verdict look_images(struct doctor *d, struct finding *f)
{
	autoclose folder = open(d->assets_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = folder >= 0 ? fdopendir(dup(folder)) : NULL;
	const struct dirent *e;
	autovar(buf) names = {0};
	struct err err = {0};
	int64_t oldest = 0;
	int rc = 0;

	while (dir != NULL && rc == 0 && (e = readdir(dir)) != NULL) {
		struct str name = str_c(e->d_name);
		int64_t age = 0;
		if (!str_ends_with(name, STR(".squashfs")) && !str_eq(name, STR("vmlinux")) &&
		    !str_eq(name, STR("initrd")))
			continue;
		rc = verify(folder, e->d_name, &age, &err);
		oldest = age > oldest ? age : oldest;
		buf_printf(&names, "%s%s", names.len > 0 ? ", " : "", e->d_name);
	}
	if (dir != NULL)
		(void)closedir(dir);
	f->fix = "make assets, then nimbus up (or nimbus doctor --fix), which installs them";
	if (rc < 0 || names.len == 0) {
		say(f, "%s", rc < 0 ? err.msg : "no kernel and no image is installed");
		return CHECK_FAIL;
	}
	say(f, "%s; whole, the oldest %" PRId64 " days old", names.data, oldest / DAY_NS);
	f->fix = "build newer ones: make assets, make images, or nimbus rootfs build";
	return oldest / DAY_NS > IMAGE_DAYS ? CHECK_WARN : CHECK_OK;
}

static int mend_images(struct doctor *d, struct err *err)
{
	autofree char *share = NULL;

	int rc = assets_find_share(&share, err);
	return rc < 0 ? rc : assets_install(share, d->assets_dir, err);
}

/* --- databases --- */

struct integrity {
	struct arena *arena;
	bool sqlite;
	const char *problem; /* NULL: none */
};

static int check_integrity(struct sql_tx *tx, void *ctx, struct err *err)
{
	struct integrity *i = ctx;
	autoptr(sql_rows) rows = NULL;

	int rc = sql_query(tx, i->sqlite ? "PRAGMA quick_check(1)" : "SELECT 'ok'", SQL_NO_ARGS, &rows, err);
	if (rc == 0)
		rc = sql_next(rows, err);
	if (rc < 0)
		return rc;
	struct str said = sql_col_text(rows, 0);
	i->problem = str_eq(said, STR("ok")) ? NULL : arena_str(i->arena, said);
	return 0;
}

static enum verdict look_database(struct doctor *d, const struct database *which, const char *url, struct finding *f)
{
	struct integrity result = {.arena = d->arena};
	autovar(dsn) dsn = {0};
	autoptr(sql) sql = NULL;
	struct err err = {0};
	struct stat st;

	int rc = dsn_parse(str_c(url), &dsn, &err);
	result.sqlite = rc == 0 && dsn.kind == DSN_SQLITE;
	if (result.sqlite && stat(dsn.path, &st) != 0 && errno == ENOENT) {
		say(f, "%s: made when its role starts; ", which->name);
		return CHECK_OK;
	}
	if (result.sqlite && stat(dsn.path, &st) == 0 && st.st_size >> 20 > QUICK_CHECK_MIB) {
		say(f, "%s: %lld MiB, too large to be read in passing; ", which->name, (long long)(st.st_size >> 20));
		return CHECK_OK;
	}
	if (rc == 0)
		rc = sql_open(&(struct sql_opts){.dsn = url, .connections = 1}, &sql, &err);
	if (rc == 0)
		rc = sql_read(sql, check_integrity, &result, &err);
	if (rc == 0 && result.problem == NULL) {
		say(f, "%s: %s; ", which->name, result.sqlite ? "whole" : "answers");
		return CHECK_OK;
	}
	say(f, "%s: %s; ", which->name, rc < 0 ? err.msg : result.problem);
	return CHECK_FAIL;
}

static enum verdict look_databases(struct doctor *d, struct finding *f)
{
	enum verdict worst = CHECK_OK;

	f->fix = "look at the address (nimbus config show --origin control-plane), the server behind it, and the disk; "
		 "nimbus admin restore brings a backup back";
	for (size_t i = 0; i < DATABASE_COUNT; i++) {
		autofree char *url = NULL;
		struct err err = {0};
		if (database_url(&d->session->role, &databases[i], &url, &err) < 0)
			continue;
		enum verdict found = look_database(d, &databases[i], url, f);
		worst = found > worst ? found : worst;
		explicit_bzero(url, strlen(url));
	}
	f->message.len -= f->message.len > 1 ? 2 : 0; /* the last "; " */
	return worst;
}

/* --- ports --- */

static bool is_taken(const char *address, int64_t port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	bool is_v4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
	int on = 1;

	if (!is_v4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1)
		return false; /* a unix socket */
	autoclose fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return fd >= 0 &&
	       bind(fd, is_v4 ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6,
		    is_v4 ? sizeof(v4) : sizeof(v6)) != 0 &&
	       errno == EADDRINUSE;
}

static enum verdict look_ports(struct doctor *d, struct finding *f)
{
	const int64_t ports[] = {d->control.port, d->logging.port, d->agent.metrics_port};
	const struct config_list *listen = &d->session->role.common.listen;
	size_t taken = 0;

	if (d->running) {
		say(f, "'nimbus up' runs here and has its own");
		return CHECK_OK;
	}
	for (size_t i = 0; i < ARRAY_LEN(ports); i++) {
		for (size_t a = 0; a < listen->count && ports[i] != 0; a++) {
			if (is_taken(listen->items[a], ports[i]))
				say(f, "%s%s:%" PRId64,
				    taken++ > 0 ? ", " : "in use by another program: ", listen->items[a], ports[i]);
		}
	}
	f->fix = "ss -ltnp says who has them; nimbus up --port-base N takes others";
	if (taken == 0)
		say(f, "%" PRId64 ", %" PRId64 " and %" PRId64 " are free", ports[0], ports[1], ports[2]);
	return taken > 0 ? CHECK_WARN : CHECK_OK;
}

static const struct doctor_check checks[] = {
	{"data directory", look_data, mend_data},
	{"logs", look_logs},
	{"secrets", look_secrets, mend_secrets},
	{"certificate", look_certificate},
	{"kernel and images", look_images, mend_images},
	{"databases", look_databases},
	{"ports", look_ports},
};
const struct doctor_table doctor_data = {checks, ARRAY_LEN(checks)};
