#include "guest/conduits.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/archiver.h"
#include "guest/task.h"

enum {
	TABLE = 1 + GUEST_HOST_STREAMS_MAX + GUEST_STREAMS_MAX,
	FIRST_OF_GUEST = 1 + GUEST_HOST_STREAMS_MAX, /* in the table; before it the host's, at 0 standard input */
	SOURCES = 2,
	WIDE = 256 * 1024, /* what is held of a stream at most, and of the rest GUEST_CREDIT_TO_GUEST */
	WIDE_MAX = GUEST_HOST_STREAMS_MAX + 8,
	BACKLOG = 64,
	GIVE_UP_NS = 1000000000, /* for outputs that a process left open in hands that cannot be killed */
	TTY_END = 4,		 /* ^D */
};

struct conduit {
	uint16_t number; /* 0: free */
	enum guest_kind kind;
	int sink;	      /* where the host's bytes go, or -1 */
	int sources[SOURCES]; /* where the guest's come from, or -1 */
	bool tty;
	bool wide;
	struct buf held; /* that the sink has not taken */
	size_t held_at;
	size_t owed; /* taken, and not granted again */
	bool ending; /* the host sends no more: the sink is closed behind what is held */
	uint64_t credit;
	pid_t pid; /* 0: none, or it has ended and is reaped */
	bool ran;
	int status;
	int own_cgroup;	       /* or -1 */
	int report;	       /* why an archive's child failed, or -1 */
	int64_t give_up_at_ns; /* 0: not yet */
	bool closed;	       /* our CLOSE is sent */
	bool host_closed;
};

enum role { ROLE_SINK, ROLE_SOURCE_0, ROLE_SOURCE_1, ROLE_LISTENER };

struct watched {
	size_t index;
	enum role role;
};

struct listener {
	int fd;
	const char *name;
};

struct conduits {
	struct buf *out;
	int cgroup_fd;
	struct conduit table[TABLE];
	size_t wide;
	struct listener listeners[GUEST_SERVICES_MAX];
	size_t listenerc;
	struct watched watched[CONDUITS_POLL_MAX];
	size_t turn; /* who is served first */
	int window_fd;
	const struct guest_job *job;
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static int64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* --- the table --- */

static struct conduit *find(struct conduits *c, uint16_t number)
{
	for (size_t i = 0; i < TABLE && number != 0; i++) {
		if (c->table[i].number == number)
			return &c->table[i];
	}
	return NULL;
}

/* All else in it is empty. */
static struct conduit *use(struct conduit *p, uint16_t number, enum guest_kind kind)
{
	*p = (struct conduit){.number = number,
			      .kind = kind,
			      .sink = -1,
			      .sources = {-1, -1},
			      .own_cgroup = -1,
			      .report = -1,
			      .credit = GUEST_CREDIT_START};
	return p;
}

static struct conduit *free_place(struct conduits *c, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		if (c->table[i].number == 0)
			return &c->table[i];
	}
	return NULL;
}

static size_t place_of(const struct conduits *c, const struct conduit *p)
{
	return (size_t)(p - c->table);
}

/* Room for more than a stream has at first, where it may be had. */
static void widen(struct conduits *c, struct conduit *p)
{
	if (c->wide >= WIDE_MAX)
		return;
	c->wide++;
	p->wide = true;
	guest_credit_encode(p->number, &(struct guest_credit){WIDE - GUEST_CREDIT_TO_GUEST}, c->out);
}

static void close_fds(struct conduit *p)
{
	/* A socket is both. */
	if (p->sink == p->sources[0])
		p->sink = -1;
	close_fd(&p->sink);
	close_fd(&p->sources[0]);
	close_fd(&p->sources[1]);
	close_fd(&p->report);
	buf_fini(&p->held);
	p->held = (struct buf){0};
	p->held_at = 0;
}

/* Those of its own, where it has a cgroup; else its process group. */
static void kill_all_of(const struct conduit *p)
{
	if (p->own_cgroup >= 0)
		cgroup_write(p->own_cgroup, "cgroup.kill", 1);
	if (p->pid > 0)
		(void)kill(p->kind == GUEST_KIND_EXEC ? -p->pid : p->pid, SIGKILL);
}

/* Both sides have closed, and nothing of it runs: the place is free. */
static void release_if_over(struct conduits *c, struct conduit *p)
{
	if (!p->closed || !p->host_closed || p->pid > 0)
		return;
	close_fds(p);
	close_fd(&p->own_cgroup);
	c->wide -= p->wide;
	p->number = 0;
}

static void say_closed(struct conduits *c, struct conduit *p, uint32_t status, struct str text)
{
	if (p->closed)
		return;
	guest_close_encode(p->number, &(struct guest_close){.status = status, .text = text}, c->out);
	p->closed = true;
	release_if_over(c, p);
}

static void fail(struct conduits *c, struct conduit *p, int error)
{
	char text[100];

	(void)snprintf(text, sizeof(text), "the connection in the VM: %s", strerror(error));
	close_fds(p);
	say_closed(c, p, GUEST_CLOSE_FAILED, str_c(text));
}

/* --- from the host --- */

static void disposed(struct conduits *c, struct conduit *p, size_t len)
{
	p->owed += len;
	if (p->closed || p->owed < (p->wide ? WIDE : GUEST_CREDIT_TO_GUEST) / 4)
		return;
	guest_credit_encode(p->number, &(struct guest_credit){(uint32_t)p->owed}, c->out);
	p->owed = 0;
}

static size_t held(const struct conduit *p)
{
	return p->held.len - p->held_at;
}

/* Nobody reads any more. */
static void sink_broke(struct conduits *c, struct conduit *p, int error)
{
	disposed(c, p, held(p));
	buf_clear(&p->held);
	p->held_at = 0;
	if (p->kind == GUEST_KIND_SERVICE) {
		fail(c, p, error);
		return;
	}
	close_fd(&p->sink);
	if (p->kind == GUEST_KIND_STDIN)
		say_closed(c, p, GUEST_CLOSE_OK, STR(""));
}

/* As much as the sink takes; gives how much, or -1 when it is broken. */
static ssize_t push(const struct conduit *p, struct str bytes)
{
	size_t done = 0;

	while (done < bytes.len) {
		ssize_t sent = write(p->sink, bytes.data + done, bytes.len - done);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN)
			return -1;
		if (sent <= 0)
			break;
		done += (size_t)sent;
	}
	return (ssize_t)done;
}

/* A connection stays open for what comes back, unless that has ended before. */
static void end_sink(struct conduits *c, struct conduit *p)
{
	if (p->kind == GUEST_KIND_SERVICE && p->sources[0] >= 0) {
		(void)shutdown(p->sink, SHUT_WR);
		return;
	}
	close_fd(&p->sink);
	if (p->kind == GUEST_KIND_SERVICE)
		say_closed(c, p, GUEST_CLOSE_OK, STR(""));
}

static void drain(struct conduits *c, struct conduit *p)
{
	ssize_t done = p->sink >= 0 ? push(p, (struct str){p->held.data + p->held_at, held(p)}) : 0;

	if (done < 0) {
		sink_broke(c, p, errno);
		return;
	}
	p->held_at += (size_t)done;
	disposed(c, p, (size_t)done);
	if (held(p) > 0)
		return;
	buf_clear(&p->held);
	p->held_at = 0;
	if (p->ending && p->sink >= 0)
		end_sink(c, p);
}

static int hold(struct conduit *p, struct str bytes, struct err *err)
{
	if (held(p) + bytes.len > WIDE)
		return err_set(err, ERR_LIMIT, "more was sent on stream %u than was granted", p->number);
	if (p->held_at > 0) {
		buf_consume(&p->held, p->held_at);
		p->held_at = 0;
	}
	buf_append_str(&p->held, bytes);
	return 0;
}

static int give(struct conduits *c, struct conduit *p, struct str bytes, struct err *err)
{
	ssize_t done = (ssize_t)bytes.len;

	if (held(p) > 0)
		return hold(p, bytes, err);
	if (p->sink >= 0)
		done = push(p, bytes);
	if (done < 0) {
		sink_broke(c, p, errno);
		disposed(c, p, bytes.len);
		return 0;
	}
	disposed(c, p, (size_t)done);
	return hold(p, (struct str){bytes.data + done, bytes.len - (size_t)done}, err);
}

static int host_ended(struct conduits *c, struct conduit *p, struct err *err)
{
	static const char end = TTY_END;

	/* A terminal has no end: its reader is told as people do. */
	if (p->tty)
		return give(c, p, (struct str){&end, 1}, err);
	p->ending = true;
	drain(c, p);
	return 0;
}

static int on_data(struct conduits *c, const struct guest_frame *frame, struct err *err)
{
	struct conduit *p = find(c, frame->stream);
	struct str bytes = frame->payload;

	/* Not (any more) open: it was on its way. */
	if (p == NULL || p->closed || p->host_closed)
		return 0;
	if (p->kind == GUEST_KIND_EXEC && bytes.len > 0) {
		bytes.data++;
		bytes.len--;
	}
	return bytes.len > 0 ? give(c, p, bytes, err) : host_ended(c, p, err);
}

static int on_credit(struct conduits *c, const struct guest_frame *frame, struct err *err)
{
	struct conduit *p = find(c, frame->stream);
	struct guest_credit m;

	int rc = guest_credit_decode(frame->payload, &m, err);
	if (rc == 0 && p != NULL)
		p->credit += m.bytes;
	return rc;
}

/* The answer to ours, or the host's own wish: then what runs for it ends. */
static int on_close(struct conduits *c, const struct guest_frame *frame, struct err *err)
{
	struct conduit *p = find(c, frame->stream);
	struct guest_close m;

	int rc = guest_close_decode(frame->payload, &m, err);
	if (rc < 0 || p == NULL)
		return rc;
	p->host_closed = true;
	kill_all_of(p);
	close_fds(p);
	if (p->pid == 0)
		say_closed(c, p, GUEST_CLOSE_OK, STR(""));
	release_if_over(c, p);
	return 0;
}

static int on_winsize(struct conduits *c, const struct guest_frame *frame, struct err *err)
{
	struct conduit *p = find(c, frame->stream);
	struct guest_winsize m;

	int rc = guest_winsize_decode(frame->payload, &m, err);
	if (rc == 0 && p != NULL && p->tty && p->sink >= 0) {
		const struct winsize size = {.ws_row = m.rows, .ws_col = m.cols};
		(void)ioctl(p->sink, TIOCSWINSZ, &size);
	}
	return rc;
}

static int on_signal(struct conduits *c, const struct guest_frame *frame, struct err *err)
{
	struct conduit *p = find(c, frame->stream);
	struct guest_signal m;

	int rc = guest_signal_decode(frame->payload, &m, err);
	if (rc == 0 && p != NULL && p->pid > 0)
		(void)kill(-p->pid, (int)m.signal);
	return rc;
}

/* --- OPEN --- */

/* The folder of a place in the table is used again: what may be left in it is killed first. */
static int make_own_cgroup(const struct conduits *c, const struct conduit *p)
{
	char name[32];

	if (c->cgroup_fd < 0)
		return -1;
	(void)snprintf(name, sizeof(name), "exec-%zu", place_of(c, p));
	(void)mkdirat(c->cgroup_fd, name, 0755);
	int fd = openat(c->cgroup_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		cgroup_write(fd, "cgroup.kill", 1);
	return fd;
}

static bool same_name(const char *a, const char *b)
{
	size_t len = (size_t)(strchr(a, '=') - a) + 1;

	return strncmp(a, b, len) == 0;
}

/* The job's, and in their places those that it brings. */
static void join_env(const struct guest_job *job, const struct guest_exec *exec, const char **ret)
{
	size_t n = 0;

	for (size_t i = 0; job != NULL && i < job->envc; i++) {
		bool replaced = false;
		for (size_t k = 0; k < exec->envc && !replaced; k++)
			replaced = same_name(job->env[i], exec->env[k]);
		if (!replaced)
			ret[n++] = job->env[i];
	}
	for (size_t i = 0; i < exec->envc; i++)
		ret[n++] = exec->env[i];
	ret[n] = NULL;
}

static int start_exec(struct conduits *c, struct conduit *p, const struct guest_open *open, struct err *err)
{
	static const char *env[2 * GUEST_ENV_MAX + 1];
	const struct guest_exec *exec = &open->exec;
	const char *cwd = c->job != NULL ? c->job->cwd : "/";
	struct task_ends ends;

	join_env(c->job, exec, env);
	p->own_cgroup = make_own_cgroup(c, p);
	const struct task_spec spec = {.argv = exec->argv,
				       .env = env,
				       .cwd = exec->cwd[0] != '\0' ? exec->cwd : cwd,
				       .user = exec->user,
				       .has_stdin = exec->has_stdin || exec->tty,
				       .tty = exec->tty,
				       .size = exec->size,
				       .cgroup_fd = c->cgroup_fd,
				       .own_cgroup_fd = p->own_cgroup};
	int rc = task_start(&spec, &ends, err);
	if (rc < 0)
		return rc;
	p->pid = ends.pid;
	p->ran = true;
	p->tty = exec->tty;
	p->sink = ends.stdin_fd;
	p->sources[0] = ends.stdout_fd;
	p->sources[1] = ends.stderr_fd;
	return 0;
}

static void keep_archive(struct conduit *p, const struct archiver *archive)
{
	p->pid = archive->pid;
	p->ran = true;
	p->sink = archive->to_fd;
	p->sources[0] = archive->from_fd;
	p->report = archive->report_fd;
}

static int start_unpack(struct conduits *c, struct conduit *p, const struct guest_open *open, struct err *err)
{
	struct archiver archive;

	int rc = archiver_unpack(open->name, c->window_fd, &archive, err);
	if (rc == 0)
		keep_archive(p, &archive);
	return rc;
}

static int start_pack(struct conduits *c, struct conduit *p, const struct guest_open *open, struct err *err)
{
	struct archiver archive;

	int rc = archiver_pack(&open->pack, c->window_fd, &archive, err);
	if (rc == 0)
		keep_archive(p, &archive);
	return rc;
}

static int (*const starters[])(struct conduits *, struct conduit *, const struct guest_open *, struct err *) = {
	[GUEST_KIND_EXEC] = start_exec,
	[GUEST_KIND_UNPACK] = start_unpack,
	[GUEST_KIND_PACK] = start_pack,
};

static int on_open(struct conduits *c, const struct guest_frame *frame, struct err *err)
{
	static struct guest_open open; /* big */
	struct err why = {0};

	int rc = guest_open_decode(frame->payload, &open, err);
	if (rc < 0)
		return rc;
	struct conduit *p = free_place(c, 1, FIRST_OF_GUEST);
	if (p == NULL || find(c, frame->stream) != NULL || frame->stream < GUEST_FIRST_OPENED)
		return err_set(err, ERR_LIMIT, "stream %u cannot be opened", frame->stream);
	use(p, frame->stream, open.kind);
	if (open.kind >= ARRAY_LEN(starters) || starters[open.kind] == NULL)
		rc = err_set(&why, ERR_UNSUPPORTED, "this guest cannot do that");
	else
		rc = starters[open.kind](c, p, &open, &why);
	if (rc < 0) {
		say_closed(c, p, GUEST_CLOSE_REFUSED, str_c(why.msg));
		return 0;
	}
	if (open.kind == GUEST_KIND_EXEC && p->sink >= 0)
		widen(c, p);
	return 0;
}

static int (*const handlers[])(struct conduits *, const struct guest_frame *, struct err *) = {
	[GUEST_OPEN] = on_open,	  [GUEST_DATA] = on_data,	[GUEST_CREDIT] = on_credit,
	[GUEST_CLOSE] = on_close, [GUEST_WINSIZE] = on_winsize, [GUEST_SIGNAL] = on_signal,
};

int conduits_take(struct conduits *c, const struct guest_frame *frame, struct err *err)
{
	assert((size_t)frame->type < ARRAY_LEN(handlers) && handlers[frame->type] != NULL);
	return handlers[frame->type](c, frame, err);
}

bool conduits_has(const struct conduits *c, uint16_t stream)
{
	(void)c;
	return stream == GUEST_STDIN || stream >= GUEST_FIRST_OPENED;
}

/* --- to the host --- */

static void close_archive(struct conduits *c, struct conduit *p)
{
	char text[GUEST_CLOSE_TEXT_MAX];
	bool good = WIFEXITED(p->status) && WEXITSTATUS(p->status) == 0;
	ssize_t len = good ? 0 : read(p->report, text, sizeof(text));

	if (len <= 0 && !good)
		len = snprintf(text, sizeof(text), "it was killed in the VM (signal %d)", WTERMSIG(p->status));
	close_fds(p);
	say_closed(c, p, good ? GUEST_CLOSE_OK : GUEST_CLOSE_FAILED, (struct str){text, (size_t)len});
}

/* Whoever was run is over, and all that it wrote is sent. */
static void close_if_done(struct conduits *c, struct conduit *p)
{
	if (!p->ran || p->pid > 0 || p->sources[0] >= 0 || p->sources[1] >= 0)
		return;
	if (p->kind != GUEST_KIND_EXEC) {
		close_archive(c, p);
		return;
	}
	uint32_t status = WIFSIGNALED(p->status) ? GUEST_CLOSE_SIGNALLED | (uint32_t)WTERMSIG(p->status)
						 : (uint32_t)WEXITSTATUS(p->status);
	close_fds(p);
	say_closed(c, p, status, STR(""));
}

static void source_ended(struct conduits *c, struct conduit *p, size_t i)
{
	if (p->kind != GUEST_KIND_SERVICE) {
		close_fd(&p->sources[i]);
		close_if_done(c, p);
		return;
	}
	guest_data_encode(p->number, GUEST_NO_PART, STR(""), c->out);
	p->sources[0] = -1; /* the socket stays open as the sink, until the host ends too */
	if (p->sink >= 0 && p->ending && held(p) == 0)
		close_fd(&p->sink);
	if (p->sink < 0)
		say_closed(c, p, GUEST_CLOSE_OK, STR(""));
}

/* True while there may be more. There is credit: the other source of the conduit may have used it up since poll(). */
static bool pump(struct conduits *c, struct conduit *p, size_t i)
{
	static char bytes[GUEST_OUTPUT_MAX];

	assert(p->credit > 0);
	size_t want = p->credit < sizeof(bytes) ? (size_t)p->credit : sizeof(bytes);
	ssize_t got = read(p->sources[i], bytes, want);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (got < 0 && p->kind == GUEST_KIND_SERVICE) {
		fail(c, p, errno);
		return false;
	}
	if (got <= 0) {
		source_ended(c, p, i);
		return false;
	}
	int part = p->kind == GUEST_KIND_EXEC ? (int)i + GUEST_STDOUT : GUEST_NO_PART;
	guest_data_encode(p->number, part, (struct str){bytes, (size_t)got}, c->out);
	p->credit -= (uint64_t)got;
	return true;
}

/* --- services --- */

static int listen_on(const struct guest_service *service, struct err *err)
{
	const struct sockaddr_in at = {
		.sin_family = AF_INET, .sin_port = htons(service->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	const int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_sys(err, "make a socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, BACKLOG) != 0) {
		int rc = err_sys(err, "listen on 127.0.0.1:%u for '%s'", service->port, service->name);
		(void)close(fd);
		return rc;
	}
	return fd;
}

int conduits_listen(struct conduits *c, const struct guest_job *job, struct err *err)
{
	for (size_t i = 0; i < job->servicec; i++) {
		int fd = listen_on(&job->services[i], err);
		if (fd < 0)
			return fd;
		c->listeners[c->listenerc++] = (struct listener){fd, job->services[i].name};
	}
	return 0;
}

static void accept_one(struct conduits *c, const struct listener *l)
{
	static struct guest_open open; /* big */
	struct conduit *p = free_place(c, FIRST_OF_GUEST, TABLE);
	int fd = p != NULL ? accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;

	if (fd < 0)
		return;
	use(p, (uint16_t)(GUEST_FIRST_OPENED + 1 + 2 * (place_of(c, p) - FIRST_OF_GUEST)), GUEST_KIND_SERVICE);
	p->sink = p->sources[0] = fd;
	open.kind = GUEST_KIND_SERVICE;
	open.name = l->name;
	int rc = guest_open_encode(p->number, &open, c->out, NULL);
	assert(rc == 0);
	widen(c, p);
}

/* --- polling --- */

static size_t watch(struct conduits *c, struct pollfd *fds, size_t n, int fd, short events, struct watched what)
{
	if (fd < 0)
		return n;
	assert(n < CONDUITS_POLL_MAX);
	fds[n] = (struct pollfd){.fd = fd, .events = events};
	c->watched[n] = what;
	return n + 1;
}

size_t conduits_poll(struct conduits *c, struct pollfd fds[static CONDUITS_POLL_MAX], bool may_read)
{
	bool room = free_place(c, FIRST_OF_GUEST, TABLE) != NULL;
	size_t n = 0;

	for (size_t i = 0; i < c->listenerc && may_read && room; i++)
		n = watch(c, fds, n, c->listeners[i].fd, POLLIN, (struct watched){i, ROLE_LISTENER});
	for (size_t k = 0; k < TABLE; k++) {
		size_t i = (c->turn + k) % TABLE;
		const struct conduit *p = &c->table[i];
		if (p->number == 0)
			continue;
		if (held(p) > 0)
			n = watch(c, fds, n, p->sink, POLLOUT, (struct watched){i, ROLE_SINK});
		for (size_t j = 0; j < SOURCES && may_read && p->credit > 0; j++)
			n = watch(c, fds, n, p->sources[j], POLLIN, (struct watched){i, ROLE_SOURCE_0 + j});
	}
	c->turn = (c->turn + 1) % TABLE;
	return n;
}

void conduits_serve(struct conduits *c, const struct pollfd *fds, size_t count, size_t out_max)
{
	for (size_t n = 0; n < count; n++) {
		const struct watched *w = &c->watched[n];
		struct conduit *p = &c->table[w->index];
		if (fds[n].revents == 0)
			continue;
		if (w->role == ROLE_LISTENER) {
			accept_one(c, &c->listeners[w->index]);
		} else if (w->role == ROLE_SINK) {
			if (p->sink == fds[n].fd)
				drain(c, p);
		} else if (c->out->len < out_max && p->credit > 0 && p->sources[w->role - ROLE_SOURCE_0] == fds[n].fd) {
			(void)pump(c, p, w->role - ROLE_SOURCE_0);
		}
	}
}

/* --- time, and the end --- */

/* What its first process leaves behind is killed. */
void conduits_reaped(struct conduits *c, pid_t pid, int status)
{
	for (size_t i = 0; i < TABLE; i++) {
		struct conduit *p = &c->table[i];
		if (p->number == 0 || p->pid != pid)
			continue;
		if (p->kind == GUEST_KIND_EXEC)
			kill_all_of(p);
		p->pid = 0;
		p->status = status;
		p->give_up_at_ns = now_ns() + GIVE_UP_NS;
		if (p->host_closed)
			say_closed(c, p, GUEST_CLOSE_OK, STR(""));
		else
			close_if_done(c, p);
		return;
	}
}

/* Nothing comes, and whoever holds the other end could not be killed. */
static void give_up(struct conduits *c, struct conduit *p)
{
	for (size_t i = 0; i < SOURCES; i++) {
		if (p->sources[i] >= 0 && p->credit > 0 && !pump(c, p, i) && p->sources[i] >= 0)
			source_ended(c, p, i);
	}
}

int64_t conduits_advance(struct conduits *c, int64_t now)
{
	int64_t next = 0;

	for (size_t i = 0; i < TABLE; i++) {
		struct conduit *p = &c->table[i];
		bool waits = p->number != 0 && p->give_up_at_ns > 0 && !p->closed && p->credit > 0;
		if (!waits)
			continue;
		if (now >= p->give_up_at_ns)
			give_up(c, p);
		else if (next == 0 || p->give_up_at_ns < next)
			next = p->give_up_at_ns;
	}
	return next;
}

bool conduits_busy(const struct conduits *c)
{
	for (size_t i = 1; i < TABLE; i++) {
		if (c->table[i].number != 0)
			return true;
	}
	return false;
}

void conduits_job(struct conduits *c, const struct guest_job *job, int stdin_fd)
{
	c->job = job;
	if (stdin_fd < 0)
		return;
	struct conduit *p = use(&c->table[0], GUEST_STDIN, GUEST_KIND_STDIN);
	p->sink = stdin_fd;
	p->tty = job->tty;
	widen(c, p);
}

void conduits_job_ended(struct conduits *c)
{
	struct conduit *p = &c->table[0];

	if (p->number == 0 || p->closed)
		return;
	close_fds(p);
	say_closed(c, p, GUEST_CLOSE_OK, STR(""));
}

struct conduits *conduits_init(struct buf *out, int cgroup_fd, int window_fd)
{
	static struct conduits conduits;

	conduits = (struct conduits){.out = out, .cgroup_fd = cgroup_fd, .window_fd = window_fd};
	return &conduits;
}

void conduits_fini(struct conduits *c)
{
	for (size_t i = 0; i < TABLE; i++) {
		if (c->table[i].number == 0)
			continue;
		kill_all_of(&c->table[i]);
		close_fds(&c->table[i]);
		close_fd(&c->table[i].own_cgroup);
		c->table[i].number = 0;
	}
	for (size_t i = 0; i < c->listenerc; i++)
		close_fd(&c->listeners[i].fd);
	c->listenerc = 0;
}
