#include "vm/qemu.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "proto/guest_window.h"
#include "vm/qmp.h"
#include "vm/tsc.h"
#include "vm/verity.h"

#define MIB (UINT64_C(1) << 20)
#define ADDRESSES_BEYOND_GUEST (4096 * MIB)
#define STATE_MAX (64 * MIB) /* of a template, without its memory: less than one is usual */
#define SAVE_POLL_NS (5 * NS_PER_MS)

struct qemu {
	struct vm vm;
	int channel_fd; /* ours; -1 once the caller has it */
	struct qmp qmp;
	int state_fd; /* where a template's state goes; -1: none */
};

static int duplicate(int fd, int *ret, struct err *err)
{
	*ret = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return *ret < 0 ? err_sys(err, "duplicate a descriptor") : 0;
}

/* The path by which QEMU opens a descriptor that it got. */
static int add_path(struct vm_launch *l, const char *option, int fd, struct err *err)
{
	int copy;

	int rc = duplicate(fd, &copy, err);
	if (rc < 0)
		return rc;
	vm_launch_arg(l, "%s", option);
	vm_launch_arg(l, "/proc/self/fd/%d", vm_launch_fd(l, copy));
	return 0;
}

/* By fdset, because a drive's file cannot be reopened by path when it is, or is to become, another user's. */
static int add_disk(struct vm_launch *l, const char *id, int set, int fd, const char *options, struct err *err)
{
	int copy;

	int rc = duplicate(fd, &copy, err);
	if (rc < 0)
		return rc;
	vm_launch_arg(l, "-add-fd");
	vm_launch_arg(l, "fd=%d,set=%d", vm_launch_fd(l, copy), set);
	vm_launch_arg(l, "-drive");
	vm_launch_arg(l, "file=/dev/fdset/%d,if=none,id=%s,format=raw,%s", set, id, options);
	vm_launch_arg(l, "-device");
	vm_launch_arg(l, "virtio-blk-device,drive=%s,serial=nimbus-%s", id, id);
	return 0;
}

/* Its size is sealed: a VMM that was taken over can neither take more of the host's memory by it nor take it away. */
static int add_window(struct qemu *q, struct err *err)
{
	q->vm.window_fd = memfd_create("nimbus-window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (q->vm.window_fd < 0 || ftruncate(q->vm.window_fd, GUEST_WINDOW_SIZE) != 0 ||
	    fcntl(q->vm.window_fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
		return err_sys(err, "make the window of the VM");
	return add_disk(&q->vm.launch, "window", 3, q->vm.window_fd, "auto-read-only=off,cache=unsafe", err);
}

static int add_channel(struct qemu *q, struct err *err)
{
	struct vm_launch *l = &q->vm.launch;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return err_sys(err, "make the guest channel");
	q->channel_fd = ends[0];
	vm_launch_arg(l, "-chardev");
	vm_launch_arg(l, "socket,id=channel,fd=%d", vm_launch_fd(l, ends[1]));
	vm_launch_arg(l, "-device");
	vm_launch_arg(l, "virtio-serial-device");
	vm_launch_arg(l, "-device");
	vm_launch_arg(l, "virtserialport,chardev=channel,name=nimbus.0");
	if (fcntl(q->channel_fd, F_SETFL, O_NONBLOCK) != 0)
		return err_sys(err, "make the guest channel");
	return 0;
}

/* The hardware address is the same in all VMs, as it must be where they are clones: the guest takes its own. */
static int add_network(struct vm_launch *l, const struct vm_spec *spec, struct err *err)
{
	int copy;

	vm_launch_arg(l, "-netdev");
	if (spec->network_fd >= 0) {
		int rc = duplicate(spec->network_fd, &copy, err);
		if (rc < 0)
			return rc;
		vm_launch_arg(l, "stream,id=network,server=off,addr.type=fd,addr.str=%d", vm_launch_fd(l, copy));
	} else {
		vm_launch_arg(l, "hubport,id=network,hubid=0");
	}
	vm_launch_arg(l, "-device");
	vm_launch_arg(l, "virtio-net-device,netdev=network,mac=02:00:00:00:00:01");
	return 0;
}

static int add_console(struct qemu *q, struct err *err)
{
	struct vm_launch *l = &q->vm.launch;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return err_sys(err, "make the console pipe");
	q->vm.console_fd = ends[0];
	vm_launch_output(l, ends[1]);
	vm_launch_arg(l, "-chardev");
	vm_launch_arg(l, "stdio,id=console,signal=off");
	vm_launch_arg(l, "-serial");
	vm_launch_arg(l, "chardev:console");
	if (fcntl(q->vm.console_fd, F_SETFL, O_NONBLOCK) != 0)
		return err_sys(err, "make the console pipe");
	return 0;
}

static struct js *capability(const char *name)
{
	struct js *c = js_new_object();

	js_set(c, "capability", js_new_text(name));
	js_set(c, "state", js_new_bool(true));
	return c;
}

/* The memory lies in its own file: the stream leaves it out. */
static struct js *capabilities(void)
{
	struct js *list = js_new_array();
	struct js *arguments = js_new_object();

	js_push(list, capability("x-ignore-shared"));
	js_set(arguments, "capabilities", list);
	return arguments;
}

static struct js *text_argument(const char *name, const char *text)
{
	struct js *arguments = js_new_object();

	js_set(arguments, name, js_new_text(text));
	return arguments;
}

static int add_restore(struct qemu *q, const struct vm_spec *spec, struct err *err)
{
	int state;

	int rc = duplicate(spec->state_fd, &state, err);
	if (rc < 0)
		return rc;
	autofree char *uri = xasprintf("fd:%d", vm_launch_fd(&q->vm.launch, state));
	vm_launch_arg(&q->vm.launch, "-incoming");
	vm_launch_arg(&q->vm.launch, "defer");
	rc = qmp_send(&q->qmp, "migrate-set-capabilities", capabilities(), err);
	return rc == 0 ? qmp_send(&q->qmp, "migrate-incoming", text_argument("uri", uri), err) : rc;
}

/* Memory with a file of its own: shared with it while it is made, copied on write by each clone. */
static int add_memory(struct qemu *q, const struct vm_spec *spec, struct err *err)
{
	struct vm_launch *l = &q->vm.launch;
	int memory;

	int rc = duplicate(spec->memory_fd, &memory, err);
	if (rc < 0)
		return rc;
	vm_launch_arg(l, "-object");
	vm_launch_arg(l, "memory-backend-file,id=memory,size=%uM,mem-path=/proc/self/fd/%d,share=%s", spec->memory_mb,
		      vm_launch_fd(l, memory), spec->origin == VM_TEMPLATE ? "on" : "off");
	return spec->origin == VM_TEMPLATE ? duplicate(spec->state_fd, &q->state_fd, err) : 0;
}

/* The commands that it begins with lie in the socket before QEMU runs: it takes them as it finds them. */
static int add_control(struct qemu *q, struct err *err)
{
	struct vm_launch *l = &q->vm.launch;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return err_sys(err, "make the control socket");
	qmp_init(&q->qmp, ends[0]);
	q->vm.control_fd = ends[0];
	vm_launch_arg(l, "-chardev");
	vm_launch_arg(l, "socket,id=control,fd=%d", vm_launch_fd(l, ends[1]));
	vm_launch_arg(l, "-mon");
	vm_launch_arg(l, "chardev=control,mode=control");
	return qmp_send(&q->qmp, "qmp_capabilities", NULL, err);
}

/*
 * Both: the kernel's end is QEMU's (panic=-1 resets, and -no-reboot makes a reset the end).
 * TCG: what makes it boot fast and at all, since nothing on this machine can calibrate the counter; the security
 * switches that are off cost boot time, and TCG is for development.
 */
static int add_command_line(struct vm_launch *l, const struct vm_spec *spec, int64_t khz, struct err *err)
{
	const char *common = "console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests "
			     "rcupdate.rcu_expedited=1 no_timer_check";
	const char *tcg = "tsc=reliable apparmor=0 security= audit=0 mitigations=off";
	autovar(buf) line = {0};
	struct verity v;

	buf_puts(&line, common);
	if (spec->accel != VM_KVM)
		buf_printf(&line, " tsc_early_khz=%lld lpj=%lld %s", (long long)khz, (long long)khz * 4, tcg);
	int rc = verity_read(spec->root_fd, &v, err);
	/* guest/verity.h; one block has no tree to be checked by. */
	if (rc == 0 && v.data_blocks > 1)
		buf_printf(&line, " nimbus.verity=%s,%llu", v.root, (unsigned long long)v.data_blocks);
	vm_launch_arg(l, "-append");
	vm_launch_arg(l, "%s", line.data);
	return rc < 0 ? err_wrap(err, "the image") : 0;
}

static void add_machine(struct vm_launch *l, const struct vm_spec *spec)
{
	bool kvm = spec->accel == VM_KVM;
	const char *const fixed[] = {
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none",
	};

	vm_launch_arg(l, "qemu-system-x86_64");
	for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
		vm_launch_arg(l, "%s", fixed[i]);
	vm_launch_arg(l, "-name");
	vm_launch_arg(l, "nimbus-%s", spec->name);
	vm_launch_arg(l, "-sandbox");
	vm_launch_arg(l, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	vm_launch_arg(l, "-machine");
	vm_launch_arg(l, "microvm,acpi=on,accel=%s%s", kvm ? "kvm" : "tcg",
		      spec->origin != VM_COLD ? ",memory-backend=memory" : "");
	vm_launch_arg(l, "-cpu");
	vm_launch_arg(l, "%s", kvm ? "host" : "qemu64,+rdrand");
	vm_launch_arg(l, "-smp");
	vm_launch_arg(l, "%u", spec->vcpus);
	vm_launch_arg(l, "-m");
	vm_launch_arg(l, "%u", spec->memory_mb);
}

/* What the kernel begins with; a clone's has begun. */
static int add_boot(struct qemu *q, const struct vm_spec *spec, struct err *err)
{
	struct vm_launch *l = &q->vm.launch;

	int rc = add_path(l, "-kernel", spec->kernel_fd, err);
	if (rc == 0)
		rc = add_path(l, "-initrd", spec->initrd_fd, err);
	if (rc == 0)
		rc = add_command_line(l, spec, spec->tsc_khz > 0 ? spec->tsc_khz : tsc_khz(), err);
	return rc;
}

/* In the same order for a template and its clones, which must be the same machine. */
static int add_devices(struct qemu *q, const struct vm_spec *spec, struct err *err)
{
	struct vm_launch *l = &q->vm.launch;

	int rc = add_channel(q, err);
	if (rc == 0)
		rc = add_console(q, err);
	if (rc == 0)
		rc = add_control(q, err);
	if (rc == 0)
		rc = add_disk(l, "root", 1, spec->root_fd, "readonly=on", err);
	/* Nobody needs the scratch disk after the VM: no flush ever waits for the host's disk. With auto-read-only QEMU
	 * would first look for a read-only descriptor in the set. */
	if (rc == 0 && spec->scratch_fd >= 0)
		rc = add_disk(l, "scratch", 2, spec->scratch_fd, "auto-read-only=off,cache=unsafe,discard=unmap", err);
	if (rc == 0)
		rc = add_window(q, err);
	/* Last: what stands before it has the same place with and without it. */
	if (rc == 0 && spec->network)
		rc = add_network(l, spec, err);
	return rc;
}

static int describe(struct qemu *q, const struct vm_spec *spec, struct err *err)
{
	add_machine(&q->vm.launch, spec);
	int rc = spec->origin != VM_COLD ? add_memory(q, spec, err) : 0;
	if (rc == 0 && spec->origin != VM_CLONE)
		rc = add_boot(q, spec, err);
	if (rc == 0)
		rc = add_devices(q, spec, err);
	if (rc == 0 && spec->origin == VM_CLONE)
		rc = add_restore(q, spec, err);
	return rc;
}

/* Far above what it needs (measured: 1.8 GiB of addresses for a guest of 256 MiB under TCG), far below what would hurt
 * the host: for a VMM that a guest has taken over. */
static int set_limits(struct vm_launch *l, const struct vm_spec *spec, struct err *err)
{
	struct stat scratch = {0};

	if (spec->scratch_fd >= 0 && fstat(spec->scratch_fd, &scratch) != 0)
		return err_sys(err, "look at the scratch disk");
	l->address_space_max = (uint64_t)spec->memory_mb * MIB + ADDRESSES_BEYOND_GUEST;
	l->file_size_max = GUEST_WINDOW_SIZE;
	if ((uint64_t)scratch.st_size > l->file_size_max)
		l->file_size_max = (uint64_t)scratch.st_size;
	if (spec->origin == VM_TEMPLATE && l->file_size_max < STATE_MAX)
		l->file_size_max = STATE_MAX;
	return 0;
}

static void qemu_free(struct vm *vm)
{
	struct qemu *q = container_of(vm, struct qemu, vm);

	vm_launch_fini(&vm->launch);
	fd_close(&vm->console_fd);
	fd_close(&vm->window_fd);
	fd_close(&q->channel_fd);
	fd_close(&q->state_fd);
	qmp_fini(&q->qmp);
	free(q);
}

static int qemu_prepare(const struct vm_spec *spec, struct vm **ret, struct err *err)
{
	struct qemu *q = xcalloc(1, sizeof(*q));
	autoptr(vm) vm = &q->vm;
	autofree char *program = NULL;

	vm->driver = &qemu_driver;
	vm->console_fd = -1;
	vm->window_fd = -1;
	q->channel_fd = -1;
	q->vm.control_fd = -1;
	q->state_fd = -1;
	qmp_init(&q->qmp, -1);
	int rc = vm_find_program(spec->program != NULL ? spec->program : qemu_driver.program, &program, err);
	if (rc < 0)
		return rc;
	vm_launch_init(&vm->launch, program);
	rc = describe(q, spec, err);
	if (rc < 0)
		return rc;
	rc = set_limits(&vm->launch, spec, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(vm);
	return 0;
}

static int qemu_connect(struct vm *vm, int *ret_fd, struct err *err)
{
	struct qemu *q = container_of(vm, struct qemu, vm);

	if (q->channel_fd < 0)
		return err_set(err, ERR_INTERNAL, "the guest channel was taken before");
	*ret_fd = fd_take(&q->channel_fd);
	return 0;
}

/* QEMU stops the VM only where a write found no room; other errors of a disk are its guest's to handle. */
static void tell(const struct qmp_message *m, vm_news_fn fn, void *ctx)
{
	bool stopped = strcmp(js_text(js_get(m->data, "action"), ""), "stop") == 0;

	if (m->type == QMP_GREETING)
		fn(ctx, VM_NEWS_UP, "");
	else if (m->type == QMP_FAILED)
		fn(ctx, VM_NEWS_REFUSED, m->text);
	else if (m->type == QMP_EVENT && strcmp(m->text, "RESUME") == 0)
		fn(ctx, VM_NEWS_RUNS, "");
	else if (m->type == QMP_EVENT && strcmp(m->text, "BLOCK_IO_ERROR") == 0 && stopped)
		fn(ctx, VM_NEWS_NO_SPACE, "");
}

static int qemu_hear(struct vm *vm, vm_news_fn fn, void *ctx, struct err *err)
{
	struct qemu *q = container_of(vm, struct qemu, vm);

	int rc = qmp_receive(&q->qmp, err);
	while (rc == 0) {
		autovar(qmp_message) m = {.text = ""};
		rc = qmp_next(&q->qmp, &m, err);
		if (rc != QMP_MESSAGE)
			return rc;
		tell(&m, fn, ctx);
		rc = 0;
	}
	return rc;
}

static int qemu_hold(struct vm *vm, struct err *err)
{
	struct qemu *q = container_of(vm, struct qemu, vm);

	return qmp_send(&q->qmp, "stop", NULL, err);
}

static int qemu_go_on(struct vm *vm, struct err *err)
{
	struct qemu *q = container_of(vm, struct qemu, vm);

	return qmp_send(&q->qmp, "cont", NULL, err);
}

static int call(struct qemu *q, const char *command, struct js *arguments, int64_t deadline_ns, struct err *err)
{
	autovar(qmp_message) answer = {.text = ""};

	return qmp_call(&q->qmp, command, arguments, deadline_ns, &answer, err);
}

/* 0: not yet. */
enum { SAVED = 1 };
static int look_at_save(struct qemu *q, int64_t deadline_ns, struct err *err)
{
	autovar(qmp_message) answer = {.text = ""};

	int rc = qmp_call(&q->qmp, "query-migrate", NULL, deadline_ns, &answer, err);
	if (rc < 0)
		return rc;
	const char *status = js_text(js_get(answer.data, "status"), "");
	if (strcmp(status, "completed") == 0)
		return SAVED;
	if (strcmp(status, "failed") != 0)
		return 0;
	return err_set(err, ERR_UNAVAILABLE, "QEMU cannot save the VM: %.200s",
		       js_text(js_get(answer.data, "error-desc"), "it does not say why"));
}

/* QEMU saves to a descriptor by name only. The answer to what add_control() sent comes first. */
static int give_state_fd(struct qemu *q, int64_t deadline_ns, struct err *err)
{
	autovar(qmp_message) first = {.text = ""};
	autovar(qmp_message) second = {.text = ""};

	int rc = qmp_answer(&q->qmp, deadline_ns, &first, err);
	if (rc == 0)
		rc = qmp_send_fd(&q->qmp, "getfd", text_argument("fdname", "state"), q->state_fd, err);
	return rc == 0 ? qmp_answer(&q->qmp, deadline_ns, &second, err) : rc;
}

static int begin_save(struct qemu *q, int64_t deadline_ns, struct err *err)
{
	struct js *fast = js_new_object();

	js_set(fast, "max-bandwidth", js_new_int(INT64_C(1) << 40));
	int rc = give_state_fd(q, deadline_ns, err);
	if (rc == 0)
		rc = call(q, "migrate-set-capabilities", capabilities(), deadline_ns, err);
	if (rc < 0) {
		js_free(fast);
		return rc;
	}
	rc = call(q, "migrate-set-parameters", fast, deadline_ns, err);
	return rc == 0 ? call(q, "migrate", text_argument("uri", "fd:state"), deadline_ns, err) : rc;
}

static int qemu_save(struct vm *vm, int64_t deadline_ns, struct err *err)
{
	struct qemu *q = container_of(vm, struct qemu, vm);

	int rc = begin_save(q, deadline_ns, err);
	while (rc == 0) {
		rc = look_at_save(q, deadline_ns, err);
		if (rc == 0 && clock_monotonic_ns() > deadline_ns)
			rc = err_set(err, ERR_TIMEOUT, "QEMU does not get done with saving the VM");
		if (rc == 0)
			clock_pause(SAVE_POLL_NS);
	}
	return rc < 0 ? rc : 0;
}

const struct vm_driver qemu_driver = {
	.name = "qemu",
	.program = "qemu-system-x86_64",
	.prepare = qemu_prepare,
	.connect = qemu_connect,
	.hear = qemu_hear,
	.hold = qemu_hold,
	.go_on = qemu_go_on,
	.save = qemu_save,
	.free = qemu_free,
};
