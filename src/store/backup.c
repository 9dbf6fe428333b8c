#include "store/backup.h"

#include <unistd.h>

#include "base/clock.h"
#include "store/sqlite_client.h"

int sql_backup(const char *from, const char *to, int64_t timeout_ns, struct err *err)
{
	struct sqlite_file source_file = {.path = from, .shown = from, .timeout_ns = timeout_ns};
	struct sqlite_file target_file = {.path = to, .shown = to, .timeout_ns = timeout_ns};
	autoptr(sqlite_client) source = NULL;
	autoptr(sqlite_client) target = NULL;

	if (access(from, F_OK) != 0)
		return err_sys(err, "open %s", from);
	int rc = sqlite_client_open(&source_file, "", &source, err);
	/* One file without a log beside it, synced when it is whole. */
	if (rc == 0)
		rc = sqlite_client_open(&target_file, "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=FULL;", &target,
					err);
	if (rc == 0)
		rc = sqlite_client_copy(source, target, clock_monotonic_ns() + timeout_ns, err);
	return rc < 0 ? err_wrap(err, "copy %s", from) : 0;
}
