#include "up/service_user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
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

/* We are root here, and the service user may write in the folder: what another name or a link leads to is not ours to
 * give away. */
static int check_own(const char *path, const struct stat *st, struct err *err)
{
	if (S_ISLNK(st->st_mode) || (!S_ISDIR(st->st_mode) && st->st_nlink > 1))
		return err_set(err, ERR_INVALID, "%s is a link: root does not give away what it leads to", path);
	return 0;
}

int service_user_own(const struct service_user *u, const char *path, struct err *err)
{
	struct stat st;

	if (!u->change)
		return 0;
	/* By descriptor, so that what is looked at is what is given. */
	autoclose fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "look at %s", path);
	int rc = check_own(path, &st, err);
	if (rc < 0 || (st.st_uid == u->uid && st.st_gid == u->gid))
		return rc;
	if (fchownat(fd, "", u->uid, u->gid, AT_EMPTY_PATH) != 0)
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
			break;
		*slash = '/';
	}
	/* It could put a link in the place of a folder that root then works in. */
	if (u->uid != 0 && faccessat(AT_FDCWD, folder, W_OK, AT_EACCESS) == 0)
		return err_set(
			err, ERR_INVALID,
			"the service user (uid %u) may write in %s itself: make root its owner (chown root), the "
			"folders in it stay the service user's",
			(unsigned)u->uid, folder);
	return 0;
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
