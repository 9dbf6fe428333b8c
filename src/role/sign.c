#include "role/sign.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"

/* -1: there is none. A child of the role has the variable and not the pipe. */
static int pipe_fd(void)
{
	const char *value = getenv(SIGN_VARIABLE);
	struct stat st;
	int64_t fd = -1;

	if (value == NULL || str_to_i64(str_c(value), SIGN_VARIABLE, 0, INT32_MAX, &fd, NULL) < 0)
		return -1;
	return fstat((int)fd, &st) == 0 && S_ISFIFO(st.st_mode) ? (int)fd : -1;
}

void sign_give(int64_t within_ns, const char *words)
{
	char line[SIGN_LINE_MAX];
	int fd = pipe_fd();

	if (fd < 0)
		return;
	int len = snprintf(line, sizeof(line) - 1, "%lld %s", (long long)(within_ns / NS_PER_S), words);
	size_t end = len < (int)sizeof(line) - 1 ? (size_t)len : sizeof(line) - 2;
	line[end] = '\n';
	(void)!write(fd, line, end + 1);
}
