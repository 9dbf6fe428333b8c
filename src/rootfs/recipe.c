#include "rootfs/recipe.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "rootfs/tool.h"

enum { FIXED_WORDS = 16, SOURCES_MAX = 1 << 20 };

static const int64_t step_timeout_ns = 3600 * NS_PER_S;

/* What packages take the day of their installation from: always the same one. */
static const char *const environment[] = {"SOURCE_DATE_EPOCH=1672531200",
					  "DEBIAN_FRONTEND=noninteractive",
					  "DEBCONF_NONINTERACTIVE_SEEN=true",
					  "HOME=/root",
					  "PYTHONHASHSEED=0",
					  NULL};

static int run(const char *const *argv, const char *package, struct buf *out, struct err *err)
{
	return tool_run(
		&(struct tool_call){
			.argv = argv, .env = environment, .package = package, .timeout_ns = step_timeout_ns},
		out, err);
}

/* A script with the tree as $1. */
static int run_script(const char *script, const char *tree, const struct js_texts *more, struct err *err)
{
	size_t count = more != NULL ? more->count : 0;
	const char **argv = xcalloc(count + FIXED_WORDS, sizeof(*argv));
	size_t at = 0;

	argv[at++] = "unshare"; /* what it mounts is gone with it */
	argv[at++] = "--mount";
	argv[at++] = "sh";
	argv[at++] = "-euc";
	argv[at++] = script;
	argv[at++] = "recipe";
	argv[at++] = tree;
	for (size_t i = 0; i < count; i++)
		argv[at++] = more->items[i];
	int rc = run(argv, "util-linux", NULL, err);
	free(argv);
	return rc;
}

/* --- where packages come from --- */

/* apt's own list of what it reads for a suite and its updates: "URI SUITE COMPONENT" a line. */
static int find_sources(const char *suite, struct buf *out, struct err *err)
{
	static const char *const tails[] = {"", "-updates", "-security"};

	for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
		autofree char *which = xasprintf("Codename: %s%s", suite, tails[i]);
		const char *const argv[] = {"apt-get",
					    "indextargets",
					    "--format",
					    "$(REPO_URI) $(RELEASE) $(COMPONENT)",
					    "Created-By: Packages",
					    which,
					    NULL};
		int rc = run(argv, "apt", out, err);
		if (rc < 0)
			return err_wrap(err, "ask apt for its sources");
	}
	return 0;
}

/* sources.list of the new system, and the mirror that debootstrap asks: the first. */
static int read_sources(const struct rootfs_recipe *recipe, struct buf *list, char **ret_mirror, struct err *err)
{
	autovar(buf) found = {0};

	if (recipe->mirror != NULL) {
		buf_printf(list, "deb %s %s main\n", recipe->mirror, recipe->suite);
		*ret_mirror = xstrdup(recipe->mirror);
		return 0;
	}
	int rc = find_sources(recipe->suite, &found, err);
	if (rc < 0)
		return rc;
	struct str rest = str_trim(buf_str(&found));
	if (rest.len == 0)
		return err_set(err, ERR_UNAVAILABLE,
			       "this machine's apt has no source for '%s': add one and run apt-get update, or name a "
			       "mirror in the recipe",
			       recipe->suite);
	while (rest.data != NULL) {
		struct str line = str_cut(&rest, '\n');
		struct str words = line;
		struct str uri = str_cut(&words, ' ');
		if (*ret_mirror == NULL)
			*ret_mirror = xmemdup0(uri.data, uri.len);
		buf_printf(list, "deb %.*s\n", STR_ARG(line));
	}
	return 0;
}

/* Proxies and the like, for the time of the installation. */
static int copy_acquire(const char *tree, struct err *err)
{
	autovar(buf) dump = {0};
	autovar(buf) lines = {0};
	autofree char *path = xasprintf("%s/etc/apt/apt.conf.d/99nimbus-build", tree);
	const char *const argv[] = {"apt-config", "dump", NULL};

	int rc = run(argv, "apt", &dump, err);
	if (rc < 0)
		return rc;
	struct str rest = buf_str(&dump);
	while (rest.data != NULL) {
		struct str line = str_cut(&rest, '\n');
		if (str_starts_with(line, STR("Acquire::http")) || str_starts_with(line, STR("Acquire::ftp")) ||
		    str_starts_with(line, STR("Acquire::Retries")))
			buf_printf(&lines, "%.*s\n", STR_ARG(line));
	}
	buf_puts(&lines, "APT::Install-Recommends \"false\";\nAcquire::Languages \"none\";\n");
	return file_write_atomic(AT_FDCWD, path, buf_str(&lines), 0644, err);
}

/* --- the steps --- */

static int lay_out(const struct rootfs_recipe *recipe, const char *tree, const char *mirror, struct err *err)
{
	autofree char *variant = xasprintf("--variant=%s", recipe->variant);
	const char *const argv[] = {"debootstrap", variant, recipe->suite, tree, mirror, NULL};

	return run(argv, "debootstrap", NULL, err);
}

static int install(const struct rootfs_recipe *recipe, const char *tree, struct err *err)
{
	static const char script[] =
		"tree=$1; shift\n"
		"mount -t proc proc \"$tree/proc\" 2>/dev/null || true\n"
		"[ -e \"$tree/etc/resolv.conf\" ] || cp /etc/resolv.conf \"$tree/etc/resolv.conf\"\n"
		"printf '#!/bin/sh\\nexit 101\\n' >\"$tree/usr/sbin/policy-rc.d\"\n"
		"chmod 755 \"$tree/usr/sbin/policy-rc.d\"\n"
		"chroot \"$tree\" apt-get -qq update\n"
		"chroot \"$tree\" apt-get -qq -y -o Dpkg::Use-Pty=0 dist-upgrade\n"
		"[ $# -eq 0 ] || chroot \"$tree\" apt-get -qq -y -o Dpkg::Use-Pty=0 install \"$@\"\n";

	return run_script(script, tree, &recipe->packages, err);
}

/*
 * What is left would differ between two runs, or says something about the machine that built it. Python's byte code
 * carries the time of its source, which packing sets to zero: made again, checked by nothing.
 */
static int clean(const char *tree, struct err *err)
{
	static const char script[] =
		"cd \"$1\"\n"
		"[ ! -x usr/bin/python3 ] || chroot . sh -c 'find /usr/lib/python3* -name __pycache__ -prune -exec rm "
		"-rf {} +; "
		"python3 -m compileall -q -j 1 --invalidation-mode unchecked-hash /usr/lib/python3* || true'\n"
		"rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* var/cache/debconf/*-old var/lib/dpkg/*-old "
		"var/cache/ldconfig/aux-cache var/cache/man/* var/lib/systemd/catalog/database tmp/* var/tmp/* run/* "
		"etc/apt/apt.conf.d/99nimbus-build usr/sbin/policy-rc.d etc/machine-id var/lib/dbus/machine-id "
		"etc/hostname etc/resolv.conf etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/.pwd.lock "
		"var/lib/dpkg/lock var/lib/dpkg/lock-frontend var/lib/dpkg/triggers/Lock var/lib/apt/extended_states "
		"root/.cache root/.npm debootstrap dev proc sys\n"
		"mkdir -p dev proc sys var/cache/apt/archives/partial var/lib/apt/lists/partial var/log/apt\n"
		": >etc/machine-id\n";

	return run_script(script, tree, NULL, err);
}

static int list_packages(const char *tree, struct js *packages, struct err *err)
{
	autofree char *admin = xasprintf("--admindir=%s/var/lib/dpkg", tree);
	autovar(buf) said = {0};
	const char *const argv[] = {"dpkg-query", admin, "-W", "-f", "${Package}:${Architecture} ${Version}\\n", NULL};

	int rc = run(argv, "dpkg", &said, err);
	if (rc < 0)
		return rc;
	struct str rest = str_trim(buf_str(&said));
	while (rest.data != NULL)
		js_push(packages, js_new_str(str_cut(&rest, '\n')));
	return 0;
}

int recipe_put(struct stage *s, const struct rootfs_recipe *recipe, struct js *packages, struct err *err)
{
	autovar(buf) sources = {0};
	autofree char *mirror = NULL;
	autofree char *list = xasprintf("%s/etc/apt/sources.list", s->path);

	if (geteuid() != 0)
		return err_set(err, ERR_FORBIDDEN,
			       "a debootstrap recipe needs root: run this as root, or give base_path a tar of a system "
			       "that was made elsewhere");
	int rc = read_sources(recipe, &sources, &mirror, err);
	if (rc == 0)
		rc = lay_out(recipe, s->path, mirror, err);
	if (rc == 0)
		rc = file_write_atomic(AT_FDCWD, list, buf_str(&sources), 0644, err);
	if (rc == 0)
		rc = copy_acquire(s->path, err);
	if (rc == 0)
		rc = install(recipe, s->path, err);
	if (rc == 0)
		rc = clean(s->path, err);
	return rc == 0 ? list_packages(s->path, packages, err) : rc;
}
