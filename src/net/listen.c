#include "net/listen.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

enum { BACKLOG = 4096, TCP_STATE_LISTEN = 0x0a };

/* --- who holds a port: proc(5), net/tcp and PID/fd --- */

/* The inode of the socket that listens on the port; 0 when the table has none. */
static uint64_t inode_in_table(const char *table, uint16_t port)
{
	autovar(buf) text = {0};

	if (file_read(AT_FDCWD, table, 64 << 20, &text, NULL) < 0)
		return 0;
	for (struct str rest = buf_str(&text); rest.data != NULL;) {
		struct str line = str_cut(&rest, '\n');
		char copy[256];
		unsigned local_port = 0;
		unsigned state = 0;
		uint64_t inode = 0;
		(void)snprintf(copy, sizeof(copy), "%.*s", STR_ARG(line));
		/* sl local remote state queues timer retransmits uid timeout inode */
		/* The kernel's own text. NOLINTNEXTLINE(cert-err34-c) */
		int got = sscanf(copy, " %*d: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*s %*s %" SCNu64, &local_port,
				 &state, &inode);
		if (got == 3 && local_port == port && state == TCP_STATE_LISTEN)
			return inode;
	}
	return 0;
}

static bool process_has_socket(const char *pid, uint64_t inode)
{
	char path[64];
	char wanted[48];
	bool found = false;

	(void)snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	(void)snprintf(wanted, sizeof(wanted), "socket:[%" PRIu64 "]", inode);
	DIR *dir = opendir(path);
	if (dir == NULL)
		return false;
	for (struct dirent *entry = readdir(dir); entry != NULL && !found; entry = readdir(dir)) {
		char target[64];
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		if (len > 0) {
			target[len] = '\0';
			found = strcmp(target, wanted) == 0;
		}
	}
	(void)closedir(dir);
	return found;
}

/* " by nginx (pid 123)", or nothing where /proc does not tell this user. */
static void describe_holder(uint16_t port, struct buf *out)
{
	uint64_t inode = inode_in_table("/proc/net/tcp", port);

	if (inode == 0)
		inode = inode_in_table("/proc/net/tcp6", port);
	DIR *dir = inode != 0 ? opendir("/proc") : NULL;
	if (dir == NULL)
		return;
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		if (!isdigit((unsigned char)entry->d_name[0]) || !process_has_socket(entry->d_name, inode))
			continue;
		char path[64];
		autovar(buf) name = {0};
		(void)snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
		if (file_read(AT_FDCWD, path, 64, &name, NULL) == 0)
			buf_printf(out, " by %.*s (pid %s)", STR_ARG(str_trim(buf_str(&name))), entry->d_name);
		break;
	}
	(void)closedir(dir);
}

/* --- the socket --- */

static int resolve(const char *address, uint16_t port, struct sockaddr_storage *ret, socklen_t *ret_len,
		   struct err *err)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
				 .ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
	struct addrinfo *list = NULL;
	char service[8];

	(void)snprintf(service, sizeof(service), "%u", port);
	int rc = getaddrinfo(address, service, &hints, &list);
	if (rc != 0)
		return err_set(err, ERR_INVALID, "'%s' is not a numeric address to listen on: %s", address,
			       gai_strerror(rc));
	memcpy(ret, list->ai_addr, list->ai_addrlen);
	*ret_len = list->ai_addrlen;
	freeaddrinfo(list);
	return 0;
}

static int port_in_use(const char *address, uint16_t port, struct err *err)
{
	autovar(buf) holder = {0};

	describe_holder(port, &holder);
	return err_set(err, ERR_CONFLICT, "port %u on %s is in use%.*s", port, address, STR_ARG(buf_str(&holder)));
}

static uint16_t port_of(const struct sockaddr_storage *at)
{
	in_port_t port = 0;
	size_t offset = at->ss_family == AF_INET6 ? offsetof(struct sockaddr_in6, sin6_port)
						  : offsetof(struct sockaddr_in, sin_port);

	memcpy(&port, (const char *)at + offset, sizeof(port));
	return ntohs(port);
}

static int open_tcp(const char *address, uint16_t port, struct listener *l, struct err *err)
{
	struct sockaddr_storage at = {0};
	socklen_t len = 0;
	int one = 1;

	int rc = resolve(address, port, &at, &len, err);
	if (rc < 0)
		return rc;
	l->fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return err_sys(err, "listen on %s", address);
	/* Connections of an earlier run that linger (TIME_WAIT) do not hold the port. */
	(void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(l->fd, (struct sockaddr *)&at, len) != 0 || listen(l->fd, BACKLOG) != 0)
		return errno == EADDRINUSE ? port_in_use(address, port, err)
					   : err_sys(err, "listen on port %u of %s", port, address);
	if (getsockname(l->fd, (struct sockaddr *)&at, &len) != 0)
		return err_sys(err, "listen on port %u of %s", port, address);
	l->port = port_of(&at);
	return 0;
}

/* --- unix sockets --- */

/* Beside the socket: the kernel would let a second role unlink and bind a path that is in use. */
static int lock_path(const char *path, int *ret_fd, struct err *err)
{
	autofree char *lock = xasprintf("%s.lock", path);
	char holder[FILE_HOLDER_SIZE] = "";
	int rc = file_lock(lock, 0600, ret_fd, holder, err);

	return rc > 0 ? err_set(err, ERR_CONFLICT, "%s is in use by process %s", path, holder) : rc;
}

static int remove_stale(const char *path, struct err *err)
{
	struct stat st;

	if (lstat(path, &st) != 0)
		return errno == ENOENT ? 0 : err_sys(err, "look at %s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, ERR_CONFLICT, "%s is there and is no socket: remove it, or listen elsewhere", path);
	return unlink(path) == 0 ? 0 : err_sys(err, "remove the old socket %s", path);
}

static int open_unix(const char *path, struct listener *l, struct err *err)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	if (path[0] != '/' || strlen(path) >= sizeof(at.sun_path))
		return err_set(err, ERR_INVALID,
			       "'%s' is no path for a unix socket: it begins with '/' and has at most %zu bytes", path,
			       sizeof(at.sun_path) - 1);
	memcpy(at.sun_path, path, strlen(path));
	int rc = lock_path(path, &l->lock_fd, err);
	if (rc == 0)
		rc = remove_stale(path, err);
	if (rc < 0)
		return rc;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&at, sizeof(at)) != 0)
		return err_sys(err, "listen on %s", path);
	l->path = xstrdup(path);
	/* Nobody can connect before listen(). */
	if (chmod(path, 0660) != 0 || listen(l->fd, BACKLOG) != 0)
		return err_sys(err, "listen on %s", path);
	return 0;
}

int listener_open(const char *address, uint16_t port, struct listener **ret, struct err *err)
{
	autoptr(listener) l = xcalloc(1, sizeof(*l));
	size_t prefix = strlen(LISTEN_UNIX);

	l->fd = -1;
	l->lock_fd = -1;
	int rc = strncmp(address, LISTEN_UNIX, prefix) == 0 ? open_unix(address + prefix, l, err)
							    : open_tcp(address, port, l, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(l);
	return 0;
}

/* --- sockets that others opened --- */

static int read_count(const char *name, int64_t max, int64_t *ret, struct err *err)
{
	const char *text = getenv(name);

	return text == NULL ? 0 : str_to_i64(str_c(text), name, 0, max, ret, err);
}

static int check_inherited(int fd, struct err *err)
{
	int listens = 0;
	socklen_t len = sizeof(listens);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0 || listens == 0)
		return err_set(err, ERR_INVALID, "LISTEN_FDS is set, but descriptor %d is no listening socket", fd);
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
		return err_sys(err, "take over descriptor %d", fd);
	return 0;
}

int listen_inherited(int fds[static LISTEN_INHERITED_MAX], size_t *ret_count, struct err *err)
{
	int64_t count = 0;
	int64_t pid = getpid();

	*ret_count = 0;
	int rc = read_count("LISTEN_FDS", LISTEN_INHERITED_MAX, &count, err);
	if (rc == 0)
		rc = read_count("LISTEN_PID", INT32_MAX, &pid, err);
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_PID");
	(void)unsetenv("LISTEN_FDNAMES");
	if (rc < 0 || pid != getpid())
		return rc;
	for (int64_t i = 0; i < count && rc == 0; i++) {
		fds[i] = LISTEN_INHERITED_FIRST + (int)i;
		rc = check_inherited(fds[i], err);
	}
	if (rc == 0)
		*ret_count = (size_t)count;
	return rc;
}

int listener_adopt(int fd, struct listener **ret, struct err *err)
{
	autoptr(listener) l = xcalloc(1, sizeof(*l));
	struct sockaddr_storage at = {0};
	socklen_t len = sizeof(at);

	l->fd = fd;
	l->lock_fd = -1;
	l->inherited = true;
	if (getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		return err_sys(err, "take over descriptor %d", fd);
	if (at.ss_family == AF_UNIX)
		l->path = xstrdup(((struct sockaddr_un *)&at)->sun_path);
	else
		l->port = port_of(&at);
	*ret = TAKE(l);
	return 0;
}

void listener_free(struct listener *l)
{
	if (l == NULL)
		return;
	if (l->path != NULL && !l->inherited)
		(void)unlink(l->path);
	fd_close(&l->fd);
	fd_close(&l->lock_fd);
	free(l->path);
	free(l);
}
