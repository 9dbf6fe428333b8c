#include "up/service_user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

void service_user_find(int64_t fallback_uid, struct service_user *ret)
{
	*ret = (struct service_user){.change = geteuid() == 0, .kvm = (gid_t)-1};
	if (!ret->change)
		return;
	ret->uid = (uid_t)fallback_uid;
	ret->gid = (gid_t)fallback_uid;
	const struct passwd *user = getpwnam("nimbus");
	if (user != NULL) {
		ret->uid = user->pw_uid;
		ret->gid = user->pw_gid;
	}
	const struct group *kvm = getgrnam("kvm");
	if (kvm != NULL)
		ret->kvm = kvm->gr_gid;
}

void service_user_apply(const struct service_user *u, struct process_spec *spec)
{
	spec->change_user = u->change;
	spec->uid = u->uid;
	spec->gid = u->gid;
	spec->extra_gid = u->kvm;
}

int service_user_own(const struct service_user *u, const char *path, struct err *err)
{
	struct stat st;

	if (!u->change)
		return 0;
	if (fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return err_sys(err, "look at %s", path);
	if (st.st_uid == u->uid && st.st_gid == u->gid)
		return 0;
	if (fchownat(AT_FDCWD, path, u->uid, u->gid, AT_SYMLINK_NOFOLLOW) != 0)
		return err_sys(err, "give %s to uid %u", path, (unsigned)u->uid);
	return 0;
}

/* The kernel decides, with the user's eyes: modes, access lists and mounts are all its own. */
static int check_as_user(const struct service_user *u, const char *folder, struct err *err)
{
	autofree char *path = xstrdup(folder);

	for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash != NULL)
			*slash = '\0';
		if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) != 0)
			return err_set(err, ERR_INVALID, "the service user (uid %u) cannot enter %s: %s",
				       (unsigned)u->uid, path, strerrordesc_np(errno));
		if (slash == NULL)
			return 0;
		*slash = '/';
	}
}

int service_user_check_path(const struct service_user *u, const char *folder, struct err *err)
{
	gid_t groups[64];

	if (!u->change)
		return 0;
	int count = getgroups((int)ARRAY_LEN(groups), groups);
	if (count < 0 || setgroups(u->kvm != (gid_t)-1 ? 1 : 0, &u->kvm) != 0 || setegid(u->gid) != 0 ||
	    seteuid(u->uid) != 0)
		return err_sys(err, "look with the eyes of uid %u", (unsigned)u->uid);
	int rc = check_as_user(u, folder, err);
	if (seteuid(0) != 0 || setegid(0) != 0 || setgroups((size_t)count, groups) != 0)
		return err_sys(err, "become root again");
	return rc;
}
