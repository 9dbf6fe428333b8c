#include "cli/house.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/http_client.h"
#include "proto/endpoints.h"

#define CALL_TIMEOUT_NS (5 * NS_PER_S)
#define END_NS (20 * NS_PER_S)
enum { SMALL_FILE_MAX = 65536, LOG_MAX = 64 << 20, TAIL_LINES = 12, ENV_MAX = 64, WORDS_MAX = 4096 };

static const char log_name[] = "up.log";

/* --- making --- */

static int find_program(char **ret, struct err *err)
{
	char path[4096];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (len <= 0)
		return err_sys(err, "read /proc/self/exe");
	*ret = xmemdup0(path, (size_t)len);
	return 0;
}

int house_make(struct house *h, struct err *err)
{
	const char *temporary = getenv("TMPDIR");

	*h = (struct house){.up.pidfd = -1};
	sigemptyset(&h->ends);
	sigaddset(&h->ends, SIGINT);
	sigaddset(&h->ends, SIGTERM);
	sigaddset(&h->ends, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &h->ends, NULL) != 0)
		return err_sys(err, "block signals");
	int len = snprintf(h->dir, sizeof(h->dir), "%s/nimbus-demo-XXXXXX", temporary != NULL ? temporary : "/tmp");
	if (len < 0 || (size_t)len >= sizeof(h->dir) || mkdtemp(h->dir) == NULL) {
		h->dir[0] = '\0';
		return err_set(err, ERR_IO, "make a folder in %s: %s", temporary != NULL ? temporary : "/tmp",
			       strerrordesc_np(errno));
	}
	/* Started as root, its roles are another user's. */
	if (chmod(h->dir, 0755) != 0)
		return err_sys(err, "%s", h->dir);
	int rc = find_program(&h->program, err);
	return rc < 0 ? rc : http_client_new(NULL, &h->client, err);
}

static size_t make_env(const char **env, size_t max)
{
	static const char *const own[] = {
		"NIMBUS_JOB_LEASE_TTL=6",
		"NIMBUS_VM_SHUTDOWN_GRACE=1",
		"NIMBUS_ORG_JOB_RATE_LIMIT=0",
		"NIMBUS_ADMIN_RATE_LIMIT=0",
		"NIMBUS_DRAIN=1",
	};
	static const char *const kept[] = {"PATH", "HOME", "TMPDIR", "LANG", "TZ"};
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_LEN(own) && count < max; i++)
		env[count++] = own[i];
	for (size_t i = 0; i < ARRAY_LEN(kept) && count < max; i++) {
		/* getenv() points behind "NAME=" of the very entry. */
		const char *value = getenv(kept[i]);
		if (value != NULL)
			env[count++] = value - strlen(kept[i]) - 1;
	}
	return count;
}

int house_start(struct house *h, struct err *err)
{
	autofree char *log = xasprintf("%s/%s", h->dir, log_name);
	const char *argv[] = {"nimbus", "up", "--data", h->dir, "--port-base", "0", NULL};
	const char *env[ENV_MAX + 1] = {NULL};
	autoclose fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(err, "%s", log);
	env[make_env(env, ENV_MAX)] = NULL;
	autofree char *endpoints = xasprintf("%s/" ENDPOINTS_FILE, h->dir);
	(void)unlink(endpoints); /* of one that was killed */
	const struct process_fd fds[] = {{fd, STDOUT_FILENO}, {fd, STDERR_FILENO}};
	int rc = process_spawn(
		&(struct process_spec){
			.path = h->program,
			.argv = argv,
			.envp = env,
			.fds = fds,
			.fd_count = ARRAY_LEN(fds),
			.parent_death_signal = SIGTERM,
			.new_session = true,
		},
		&h->up, err);
	h->running = rc == 0;
	return rc;
}

/* --- finding it --- */

static void put_last_lines(const struct house *h, struct buf *out)
{
	autofree char *path = xasprintf("%s/%s", h->dir, log_name);
	autovar(buf) text = {0};

	if (file_read(AT_FDCWD, path, LOG_MAX, &text, NULL) < 0 || text.len == 0)
		return;
	size_t at = text.len;
	for (int lines = 0; at > 0 && lines <= TAIL_LINES; at--)
		lines += text.data[at - 1] == '\n';
	buf_append(out, text.data + at, text.len - at);
}

static int has_ended(struct house *h, struct err *err)
{
	struct process_exit end = {0};
	autovar(buf) said = {0};

	if (process_wait(&h->up, clock_monotonic_ns(), &end, NULL) < 0)
		return 0;
	h->running = false;
	put_last_lines(h, &said);
	return err_set(err, ERR_UNAVAILABLE, "'nimbus up' ended with %d: %s", end.exited ? end.code : -end.signal,
		       said.data != NULL ? said.data : "it said nothing");
}

static int read_token(struct house *h, struct err *err)
{
	autofree char *path = xasprintf("%s/" ADMIN_TOKEN_FILE, h->dir);
	autovar(buf) text = {0};
	int rc = file_read(AT_FDCWD, path, SMALL_FILE_MAX, &text, err);

	if (rc == 0) {
		struct str token = str_trim(buf_str(&text));
		secret_free(h->token);
		h->token = secret_new(token.data, token.len);
	}
	if (text.data != NULL)
		secret_wipe(text.data, text.len);
	return rc;
}

int house_ready(struct house *h, struct err *err)
{
	autofree char *path = xasprintf("%s/" ENDPOINTS_FILE, h->dir);
	autoptr(arena) arena = arena_new();
	autovar(buf) text = {0};
	struct endpoints found = {0};

	if (access(path, R_OK) != 0)
		return has_ended(h, err);
	int rc = file_read(AT_FDCWD, path, SMALL_FILE_MAX, &text, err);
	if (rc == 0)
		rc = endpoints_decode(buf_str(&text), arena, &found, err);
	if (rc == 0)
		rc = read_token(h, err);
	if (rc < 0)
		return rc;
	free(h->control);
	free(h->logs);
	h->control = xstrdup(found.control_plane);
	h->logs = xstrdup(found.logging_pipeline);
	return 1;
}

bool house_pause(struct house *h, int64_t ns)
{
	const struct timespec wait = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};

	if (!h->interrupted && sigtimedwait(&h->ends, NULL, &wait) > 0)
		h->interrupted = true;
	return !h->interrupted;
}

int house_ask(struct house *h, enum house_server server, const char *method, const char *path, const struct js *body,
	      struct js **ret, struct err *err)
{
	autofree char *url = http_url(server == HOUSE_CONTROL ? h->control : h->logs, path);
	autovar(http_reply) reply = {0};
	autovar(buf) text = {0};

	if (body != NULL)
		js_write(body, &text);
	int rc = http_client_do(h->client,
				&(struct http_call){
					.method = method,
					.url = url,
					.token = h->token,
					.body = buf_str(&text),
					.timeout_ns = CALL_TIMEOUT_NS,
					.max_reply = 64 << 20,
				},
				&reply, err);
	return rc < 0 ? rc : js_parse(buf_str(&reply.body), ret, err);
}

/* --- its processes --- */

/* Calls fn for each process until it gives true; that one's number, or 0. */
static pid_t find_process(const struct house *h, bool (*fn)(const struct house *h, pid_t pid, const void *ctx),
			  const void *ctx)
{
	DIR *dir = opendir("/proc");
	pid_t found = 0;

	for (struct dirent *e = dir != NULL ? readdir(dir) : NULL; e != NULL && found == 0; e = readdir(dir)) {
		int64_t pid = 0;
		if (str_to_i64(str_c(e->d_name), "pid", 1, INT32_MAX, &pid, NULL) == 0 && fn(h, (pid_t)pid, ctx))
			found = (pid_t)pid;
	}
	if (dir != NULL)
		(void)closedir(dir);
	return found;
}

static bool read_proc(pid_t pid, const char *name, struct buf *out)
{
	autofree char *path = xasprintf("/proc/%d/%s", (int)pid, name);

	/* These have no size that could be asked for, so they are read like a stream. */
	autoclose fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd >= 0 ? read(fd, buf_reserve(out, WORDS_MAX), WORDS_MAX - 1) : -1;
	if (got <= 0)
		return false;
	out->len = (size_t)got;
	out->data[got] = '\0';
	return true;
}

/* The second word of its command line. */
static bool is_called(pid_t pid, const char *word)
{
	autovar(buf) words = {0};

	if (!read_proc(pid, "cmdline", &words))
		return false;
	size_t first = strlen(words.data) + 1;
	return first < words.len && strcmp(words.data + first, word) == 0;
}

static bool is_child(pid_t pid, pid_t parent)
{
	autovar(buf) stat = {0};

	if (!read_proc(pid, "stat", &stat))
		return false;
	/* "PID (NAME) STATE PPID": the name may have anything in it. */
	const char *name_end = strrchr(stat.data, ')');
	return name_end != NULL && strlen(name_end) > 4 && name_end[2] != 'Z' &&
	       strtoimax(name_end + 4, NULL, 10) == parent;
}

static bool is_role(const struct house *h, pid_t pid, const void *ctx)
{
	return is_child(pid, h->up.pid) && is_called(pid, ctx);
}

pid_t house_role(const struct house *h, const char *role)
{
	return h->running ? find_process(h, is_role, role) : 0;
}

static bool lies_here(const struct house *h, int fd_dir, const char *name)
{
	char path[4096];
	size_t len = strlen(h->dir);
	ssize_t got = readlinkat(fd_dir, name, path, sizeof(path));

	return got > (ssize_t)len && memcmp(path, h->dir, len) == 0 && path[len] == '/';
}

/* Whether it has a file of this house open. */
static bool lives_here(const struct house *h, pid_t pid, const void *ctx)
{
	autofree char *path = xasprintf("/proc/%d/fd", (int)pid);
	bool found = false;

	if (pid == getpid() || (ctx != NULL && !is_called(pid, ctx)))
		return false;
	DIR *dir = opendir(path);
	for (struct dirent *e = dir != NULL ? readdir(dir) : NULL; e != NULL && !found; e = readdir(dir))
		found = lies_here(h, dirfd(dir), e->d_name);
	if (dir != NULL)
		(void)closedir(dir);
	return found;
}

pid_t house_shim(const struct house *h)
{
	return find_process(h, lives_here, "shim");
}

static void wait_a_moment(void)
{
	clock_pause(20 * NS_PER_MS);
}

int house_kill_up(struct house *h, struct err *err)
{
	int64_t deadline_ns = clock_monotonic_ns() + END_NS;
	struct process_exit end = {0};
	int rc = process_signal(&h->up, SIGKILL, err);

	if (rc == 0)
		rc = process_wait(&h->up, deadline_ns, &end, err);
	if (rc < 0)
		return rc;
	h->running = false;
	/* Its roles die with it, a moment later; the next one must find their locks free. */
	static const char *const roles[] = {"control-plane", "logging-pipeline", "host-agent"};
	for (size_t i = 0; i < ARRAY_LEN(roles); i++)
		while (find_process(h, lives_here, roles[i]) != 0 && clock_monotonic_ns() < deadline_ns)
			wait_a_moment();
	return 0;
}

void house_end(struct house *h, bool keep)
{
	struct process_exit end = {0};
	int64_t deadline_ns = clock_monotonic_ns() + END_NS;

	if (h->running && process_signal(&h->up, SIGINT, NULL) == 0 &&
	    process_wait(&h->up, deadline_ns, &end, NULL) < 0)
		(void)!house_kill_up(h, NULL);
	deadline_ns = clock_monotonic_ns() + END_NS;
	for (pid_t pid = 0; h->dir[0] != '\0' && clock_monotonic_ns() < deadline_ns &&
			    (pid = find_process(h, lives_here, NULL)) != 0;) {
		(void)kill(pid, SIGKILL);
		wait_a_moment();
	}
	if (h->dir[0] != '\0' && !keep)
		(void)!dir_remove(AT_FDCWD, h->dir, NULL);
	http_client_free(TAKE(h->client));
	secret_free(TAKE(h->token));
	free(TAKE(h->program));
	free(TAKE(h->control));
	free(TAKE(h->logs));
}
