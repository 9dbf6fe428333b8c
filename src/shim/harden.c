#include "shim/harden.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/confine.h"

int harden_self(struct err *err)
{
	const struct rlimit no_core = {1, 1}; /* one byte: at 0 a core handler would still be called */

	if (!confine_drop_capabilities(0))
		return err_sys(err, "drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return err_sys(err, "set no_new_privs");
	if (setrlimit(RLIMIT_CORE, &no_core) != 0)
		return err_sys(err, "forbid core dumps");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return err_sys(err, "become undumpable");
	return 0;
}
