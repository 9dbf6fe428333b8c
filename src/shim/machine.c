#include "shim/machine.h"

#include <errno.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

enum { CONSOLE_KEPT = 4096, WORDS_MAX = 160, REAP_S = 10, CONNECT_S = 60 };

#define CONNECT_RETRY_NS (5 * NS_PER_MS)
#define STALL_RETRY_NS NS_PER_S
/* A VM that has run for so long since it was tried again has found its room. */
#define STALL_OVER_NS (2 * NS_PER_S)

struct machine {
	struct vm *vm;
	const struct machine_ops *ops;
	void *ctx;
	struct process process;
	bool running;
	struct loop_source *pidfd;
	struct loop_source *console;
	struct loop_source *control;
	struct loop_source *connect_timer;
	int64_t connect_by_ns;
	struct loop_source *stall_timer;
	enum { FLOWS, STALLED, TRIED } stall;
	struct buf tail; /* the end of the console, unchecked */
	char words[WORDS_MAX + 1];
};

static void read_console(struct machine *m)
{
	char bytes[4096];
	ssize_t got = read(m->vm->console_fd, bytes, sizeof(bytes));

	if (got > 0) {
		buf_append(&m->tail, bytes, (size_t)got);
		if (m->tail.len > CONSOLE_KEPT)
			buf_consume(&m->tail, m->tail.len - CONSOLE_KEPT);
	} else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
		loop_source_free(TAKE(m->console));
	}
}

static void on_console(void *ctx, unsigned events)
{
	(void)events;
	read_console(ctx);
}

int machine_window(const struct machine *m)
{
	return m->vm->window_fd;
}

const char *machine_last_words(struct machine *m)
{
	struct str rest = str_trim(buf_str(&m->tail));
	struct str line = {NULL, 0};
	size_t len = 0;

	while (rest.data != NULL)
		line = str_cut(&rest, '\n');
	line = str_trim(line);
	for (; len < line.len && len < WORDS_MAX; len++) {
		char byte = line.data[len];
		if (byte < ' ' || byte > '~')
			byte = '?';
		m->words[len] = byte;
	}
	m->words[len] = '\0';
	return m->words;
}

void machine_forget_words(struct machine *m)
{
	if (m->console != NULL)
		read_console(m);
	buf_clear(&m->tail);
}

static void on_ended(void *ctx, unsigned events)
{
	struct machine *m = ctx;
	struct process_exit exit = {0};
	struct err err = {0};

	(void)events;
	loop_source_free(TAKE(m->pidfd));
	loop_source_free(TAKE(m->connect_timer));
	loop_source_free(TAKE(m->control));
	loop_source_free(TAKE(m->stall_timer));
	if (m->console != NULL)
		read_console(m);
	if (process_wait(&m->process, clock_monotonic_ns() + REAP_S * NS_PER_S, &exit, &err) < 0)
		log_error("the VMM's end could not be read", F("error", &err));
	m->running = false;
	m->ops->ended(m->ctx, &exit);
}

static void try_connect(void *ctx)
{
	struct machine *m = ctx;
	struct err err = {.msg = "it did not open in time"};
	int fd = -1;

	int rc = vm_connect(m->vm, &fd, &err);
	if (rc == 0) {
		m->ops->connected(m->ctx, fd);
	} else if (rc == VM_NOT_YET && clock_monotonic_ns() < m->connect_by_ns) {
		loop_timer_set(m->connect_timer, clock_monotonic_ns() + CONNECT_RETRY_NS);
	} else {
		/* Without a channel it is of no use; its end says so. */
		log_warn("the guest channel could not be opened: ending the VM", F("error", &err));
		machine_kill(m);
	}
}

/* --- no room on the host's disk --- */

static void on_stall_timer(void *ctx)
{
	struct machine *m = ctx;
	struct err err = {0};

	if (m->stall == TRIED) {
		m->stall = FLOWS;
		m->ops->stalled(m->ctx, false);
		return;
	}
	m->stall = TRIED;
	loop_timer_set(m->stall_timer, clock_monotonic_ns() + STALL_OVER_NS);
	if (vm_go_on(m->vm, &err) < 0)
		log_error("a VM that stands still cannot be told to go on", F("error", &err));
}

static void on_no_space(struct machine *m)
{
	/* Each request that finds no room is told. */
	if (m->stall == STALLED)
		return;
	m->stall = STALLED;
	loop_timer_set(m->stall_timer, clock_monotonic_ns() + STALL_RETRY_NS);
	m->ops->stalled(m->ctx, true);
}

/* --- what the VMM says --- */

static void on_news(void *ctx, enum vm_news news, const char *text)
{
	struct machine *m = ctx;

	if (news == VM_NEWS_NO_SPACE)
		on_no_space(m);
	else
		m->ops->told(m->ctx, news, text);
}

static void on_control(void *ctx, unsigned events)
{
	struct machine *m = ctx;
	struct err err = {0};

	(void)events;
	/* Its end is told by the process. */
	if (vm_hear(m->vm, on_news, m, &err) < 0)
		loop_source_free(TAKE(m->control));
}

static int watch(struct machine *m, struct loop *loop, struct err *err)
{
	int rc = loop_add_fd(loop, m->process.pidfd, LOOP_READ, LOOP_NORMAL, on_ended, m, &m->pidfd, err);

	if (rc == 0)
		rc = loop_add_fd(loop, m->vm->console_fd, LOOP_READ, LOOP_BULK, on_console, m, &m->console, err);
	if (rc == 0)
		rc = loop_add_fd(loop, m->vm->control_fd, LOOP_READ, LOOP_BULK, on_control, m, &m->control, err);
	if (rc == 0)
		rc = loop_add_timer(loop, LOOP_NEVER, LOOP_NORMAL, on_stall_timer, m, &m->stall_timer, err);
	if (rc == 0)
		rc = loop_add_timer(loop, clock_monotonic_ns(), LOOP_NORMAL, try_connect, m, &m->connect_timer, err);
	return rc;
}

int machine_start(struct loop *loop, const struct vm_driver *driver, const struct vm_spec *spec,
		  const struct machine_ops *ops, void *ctx, struct machine **ret, struct err *err)
{
	autoptr(machine) m = xcalloc(1, sizeof(*m));

	m->ops = ops;
	m->ctx = ctx;
	m->process.pidfd = -1;
	int rc = vm_prepare(driver, spec, &m->vm, err);
	if (rc == 0)
		rc = vm_launch(&m->vm->launch, &m->process, err);
	if (rc < 0)
		return rc;
	m->running = true;
	m->connect_by_ns = clock_monotonic_ns() + CONNECT_S * NS_PER_S;
	rc = watch(m, loop, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(m);
	return 0;
}

int machine_hold(struct machine *m, struct err *err)
{
	return vm_hold(m->vm, err);
}

int machine_wake(struct machine *m, struct err *err)
{
	return vm_go_on(m->vm, err);
}

int64_t machine_memory(const struct machine *m)
{
	autofree char *path = xasprintf("/proc/%d/smaps_rollup", (int)m->process.pid);

	return m->running ? file_proc_bytes(path, STR("Pss")) : 0;
}

void machine_kill(struct machine *m)
{
	struct err err = {0};

	if (m->running && process_signal(&m->process, SIGKILL, &err) < 0)
		log_error("the VMM could not be killed", F("error", &err));
}

void machine_free(struct machine *m)
{
	struct process_exit ignored;

	if (m == NULL)
		return;
	machine_kill(m);
	if (m->running)
		(void)(process_wait(&m->process, clock_monotonic_ns() + REAP_S * NS_PER_S, &ignored, NULL) == 0);
	loop_source_free(m->pidfd);
	loop_source_free(m->console);
	loop_source_free(m->control);
	loop_source_free(m->connect_timer);
	loop_source_free(m->stall_timer);
	vm_free(m->vm);
	buf_fini(&m->tail);
	fd_close(&m->process.pidfd);
	free(m);
}
