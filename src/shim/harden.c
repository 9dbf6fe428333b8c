#include "shim/harden.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Without CAP_SETPCAP the bounding set stays as it is, which no_new_privs makes harmless. */
static int drop_bounding_set(struct err *err)
{
	for (unsigned long cap = 0; cap < 64; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0 || errno == EPERM)
			continue;
		if (errno == EINVAL) /* one more than this kernel knows */
			return 0;
		return err_sys(err, "drop the capability bounding set");
	}
	return 0;
}

static int drop_capabilities(struct err *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	int rc = drop_bounding_set(err);
	if (rc < 0)
		return rc;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
		return err_sys(err, "drop ambient capabilities");
	if (syscall(SYS_capset, &header, none) != 0)
		return err_sys(err, "drop capabilities");
	return 0;
}

int harden_self(struct err *err)
{
	const struct rlimit no_core = {1, 1}; /* one byte: at 0 a core handler would still be called */

	int rc = drop_capabilities(err);
	if (rc < 0)
		return rc;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return err_sys(err, "set no_new_privs");
	if (setrlimit(RLIMIT_CORE, &no_core) != 0)
		return err_sys(err, "forbid core dumps");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return err_sys(err, "become undumpable");
	return 0;
}
