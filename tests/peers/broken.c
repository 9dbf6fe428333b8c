/*
 * Makes a nimbus of which one role does not come up. The file PROGRAM.broken says which, and what it does: "ROLE falls"
 * (ends as soon as it is started), "ROLE hangs" (does nothing, and no signal but SIGKILL ends it), "ROLE refuses" (says
 * on its first socket that it is not ready, for ever), "ROLE waits" (says that it will take long, and comes up when the
 * file PROGRAM.go is there). All else, `up` itself too, works as ever.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "role/sign.h"

enum { LISTENER = 3 };

static void falls(void)
{
	(void)fputs("broken: this role does not start\n", stderr);
	_exit(3);
}

static void hangs(void)
{
	sigset_t all;

	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	for (;;)
		(void)pause();
}

static void refuses(void)
{
	static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
				     "Content-Length: 34\r\nConnection: close\r\n\r\n"
				     "{\"detail\": \"counting its fingers\"}";
	char request[4096];

	for (;;) {
		(void)poll(&(struct pollfd){.fd = LISTENER, .events = POLLIN}, 1, -1);
		int fd = accept(LISTENER, NULL, NULL);
		if (fd < 0)
			continue;
		(void)!read(fd, request, sizeof(request));
		(void)!write(fd, answer, sizeof(answer) - 1);
		(void)close(fd);
	}
}

static void waits(const char *program)
{
	char path[PATH_MAX + 8];

	sign_give(INT64_C(600) * 1000000000, "broken: taking long");
	(void)snprintf(path, sizeof(path), "%s.go", program);
	while (access(path, F_OK) != 0)
		(void)poll(NULL, 0, 10);
}

static void act(const char *program, const char *how)
{
	if (strcmp(how, "falls") == 0)
		falls();
	else if (strcmp(how, "hangs") == 0)
		hangs();
	else if (strcmp(how, "refuses") == 0)
		refuses();
	else if (strcmp(how, "waits") == 0)
		waits(program);
}

__attribute__((constructor)) static void begin(int argc, char **argv)
{
	char program[PATH_MAX] = "", path[PATH_MAX + 8], role[32] = "", how[32] = "";

	if (argc < 2 || readlink("/proc/self/exe", program, sizeof(program) - 1) < 0)
		return;
	(void)snprintf(path, sizeof(path), "%s.broken", program);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return;
	int found = fscanf(file, "%31s %31s", role, how);
	(void)fclose(file);
	if (found == 2 && strcmp(role, argv[1]) == 0)
		act(program, how);
	else
		sign_give(INT64_C(600) * 1000000000, "broken: a role that is not"); /* it counts as slow, not as hung */
}
