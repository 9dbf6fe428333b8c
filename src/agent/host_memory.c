#include "agent/host_memory.h"

#include <fcntl.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"

int64_t host_memory_free(void)
{
	autovar(buf) text = {0};
	int64_t kib = 0;

	if (file_read(AT_FDCWD, "/proc/meminfo", 64 << 10, &text, NULL) < 0)
		return 0;
	for (struct str rest = buf_str(&text); rest.data != NULL;) {
		struct str value = str_cut(&rest, '\n');
		if (!str_eq(str_cut(&value, ':'), STR("MemAvailable")))
			continue;
		value = str_trim(value);
		(void)!str_to_i64(str_cut(&value, ' '), "memory", 0, INT64_MAX >> 10, &kib, NULL);
	}
	return kib << 10;
}
