/*
 * Makes a nimbus of which one role ends as soon as it is started: the one that the file PROGRAM.broken names. All else,
 * `up` itself too, works as ever.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

__attribute__((constructor)) static void fall(int argc, char **argv)
{
	static const char suffix[] = ".broken";
	char path[PATH_MAX] = "", role[64] = "";
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - sizeof(suffix));

	if (argc < 2 || len < 0)
		return;
	memcpy(path + len, suffix, sizeof(suffix));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	len = read(fd, role, sizeof(role) - 1);
	(void)close(fd);
	if (len > 0 && strcmp(role, argv[1]) == 0) {
		(void)fputs("broken: this role does not start\n", stderr);
		_exit(3);
	}
}
