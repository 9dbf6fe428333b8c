#include "agent/host_memory.h"

#include "base/file.h"

int64_t host_memory_free(void)
{
	return file_proc_bytes("/proc/meminfo", STR("MemAvailable"));
}
