#include "guest/rehearsal.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/archiver.h"

enum { PATIENCE_MS = 1000, WORDS_MAX = 64, PATHS = 4 };

/* Until there is no more, the bytes do not fit, or nothing comes for long. */
static size_t hear(int fd, char *words, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t len = 0;

	while (len < size && poll(&p, 1, PATIENCE_MS) == 1) {
		ssize_t got = read(fd, words + len, size - len);
		if (got <= 0)
			break;
		len += (size_t)got;
	}
	return len;
}

static void end(const struct archiver *a)
{
	char ignored[WORDS_MAX];

	(void)hear(a->report_fd, ignored, sizeof(ignored)); /* which it closes when it ends */
	(void)kill(a->pid, SIGKILL);
	(void)waitpid(a->pid, NULL, 0);
	(void)close(a->from_fd);
	(void)close(a->report_fd);
}

/* Gives what it said of the window's pieces. */
static size_t pack(const char *folder, int window_fd, char *words, size_t size)
{
	const struct guest_pack what = {.count = 1, .paths = {folder}};
	struct archiver a;

	if (archiver_pack(&what, window_fd, &a, NULL) < 0)
		return 0;
	size_t len = hear(a.from_fd, words, size);
	(void)close(a.to_fd);
	end(&a);
	return len;
}

static void unpack(const char *folder, int window_fd, const char *words, size_t len)
{
	char said[WORDS_MAX];
	struct archiver a;

	if (archiver_unpack(folder, window_fd, &a, NULL) < 0)
		return;
	ssize_t ignored = write(a.to_fd, words, len);
	(void)ignored;
	(void)close(a.to_fd);
	(void)hear(a.from_fd, said, sizeof(said));
	end(&a);
}

static void write_file(const char *path)
{
	static const char text[512] = "a rehearsal\n";
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0)
		return;
	ssize_t ignored = write(fd, text, sizeof(text));
	(void)ignored;
	(void)close(fd);
}

void rehearse_archives(const char *folder, int window_fd)
{
	char paths[PATHS][PATH_MAX], words[WORDS_MAX];
	const char *name = strrchr(folder, '/');

	if (window_fd < 0 || name == NULL || mkdir(folder, 0755) != 0)
		return;
	/* In the order in which they can be removed. */
	(void)snprintf(paths[0], PATH_MAX, "%s%s/file", folder, name);
	(void)snprintf(paths[1], PATH_MAX, "%s%s", folder, name);
	(void)snprintf(paths[2], PATH_MAX, "%s/file", folder);
	(void)snprintf(paths[3], PATH_MAX, "%s", folder);
	write_file(paths[2]);
	size_t len = pack(folder, window_fd, words, sizeof(words));
	if (len > 0)
		unpack(folder, window_fd, words, len);
	for (size_t i = 0; i < PATHS; i++)
		(void)remove(paths[i]);
}
