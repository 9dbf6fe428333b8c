#include "vm/kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/driver.h"
#include "vm/handshake.h"

#define CACHE_NAME "kvm-probe"
#define WORKS "KVM works: jobs run on the host's CPU"

enum { PROBE_S = 3, CACHE_MAX = 4096 };

static void decide(struct kvm_verdict *v, bool usable, const char *sentence)
{
	v->usable = usable;
	(void)snprintf(v->sentence, sizeof(v->sentence), "%s", sentence);
}

/* True when this alone settles it: no device, or not for us. */
static bool cannot_open(struct kvm_verdict *v)
{
	autoclose fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return false;
	if (errno == ENOENT)
		decide(v, false, "there is no /dev/kvm: using TCG (slower)");
	else if (errno == EACCES || errno == EPERM)
		decide(v, false, "/dev/kvm may not be opened by this user (add it to group kvm): using TCG (slower)");
	else
		decide(v, false, "/dev/kvm does not open: using TCG (slower)");
	return true;
}

/* --- the cache: one line for the host, one for the answer --- */

/* "6.1.0-56 3e0f..." : another kernel or another boot asks again. */
static int host_line(struct buf *out, struct err *err)
{
	struct utsname host;

	if (uname(&host) != 0)
		return err_sys(err, "uname");
	buf_printf(out, "%s ", host.release);
	return file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, out, err);
}

static int read_cache(int cache_fd, struct kvm_verdict *v, struct err *err)
{
	autovar(buf) text = {0};
	autovar(buf) host = {0};

	int rc = host_line(&host, err);
	if (rc < 0)
		return rc;
	if (faccessat(cache_fd, CACHE_NAME, F_OK, 0) != 0)
		return KVM_UNKNOWN;
	rc = file_read(cache_fd, CACHE_NAME, CACHE_MAX, &text, err);
	if (rc < 0)
		return rc;
	struct str rest = buf_str(&text);
	if (!str_starts_with(rest, buf_str(&host)))
		return KVM_UNKNOWN;
	rest = (struct str){rest.data + host.len, rest.len - host.len};
	autofree char *sentence = xasprintf("%.*s", STR_ARG(str_trim(rest)));
	decide(v, strcmp(sentence, WORKS) == 0, sentence);
	return 0;
}

static int write_cache(int cache_fd, const struct kvm_verdict *v, struct err *err)
{
	autovar(buf) text = {0};

	int rc = host_line(&text, err);
	if (rc < 0)
		return rc;
	buf_printf(&text, "%s\n", v->sentence);
	return file_write_atomic(cache_fd, CACHE_NAME, buf_str(&text), 0644, err);
}

int kvm_probe_cached(int cache_fd, struct kvm_verdict *ret, struct err *err)
{
	if (cannot_open(ret))
		return 0;
	return read_cache(cache_fd, ret, err);
}

/* --- the trial --- */

/* The last line of what the VMM said, which tells why it gave up. */
static void last_words(int console_fd, char *text, size_t size)
{
	char bytes[4096];
	ssize_t len = read(console_fd, bytes, sizeof(bytes) - 1);
	struct str said = str_trim((struct str){bytes, len > 0 ? (size_t)len : 0});
	struct str line = said;

	while (said.len > 0)
		line = str_cut(&said, '\n');
	text[0] = '\0';
	for (size_t i = 0; i < line.len && i + 1 < size && i < 100; i++) {
		text[i] = (char)(line.data[i] >= ' ' && line.data[i] <= '~' ? line.data[i] : '?');
		text[i + 1] = '\0';
	}
}

static int say_hello(struct vm *vm, struct err *err)
{
	autofree struct vm_reader *reader = xcalloc(1, sizeof(*reader));
	autoclose fd = -1;
	struct guest_hello hello;
	struct guest_ack ack;

	int rc = vm_connect(vm, &fd, err);
	if (rc == VM_NOT_YET)
		return err_set(err, ERR_INTERNAL, "%s does not connect at once", vm->driver->name);
	if (rc < 0)
		return rc;
	vm_hello("probe", &hello);
	return vm_handshake(fd, &hello, reader, clock_monotonic_ns() + PROBE_S * NS_PER_S, &ack, err);
}

static void end(struct process *p)
{
	struct process_exit ignored;

	if (process_signal(p, SIGKILL, NULL) < 0 || process_wait(p, INT64_MAX, &ignored, NULL) < 0)
		fd_close(&p->pidfd);
}

/* 0 whatever the guest did; negative when there was no VM to try. */
static int try_guest(const struct kvm_probe_opts *opts, struct kvm_verdict *v, struct err *err)
{
	const struct vm_spec spec = {
		.name = "kvm-probe",
		.dir_fd = -1,
		.kernel_fd = opts->kernel_fd,
		.initrd_fd = opts->initrd_fd,
		.root_fd = opts->root_fd,
		.scratch_fd = -1,
		.vcpus = 1,
		.memory_mb = 128,
		.accel = VM_KVM,
		.program = opts->program,
	};
	autoptr(vm) vm = NULL;
	struct process process;
	struct err silent = {0};
	char words[128];

	int rc = vm_prepare(vm_driver_by_name(STR("qemu")), &spec, &vm, err);
	if (rc == 0)
		rc = vm_launch(&vm->launch, &process, err);
	if (rc < 0)
		return rc;
	if (say_hello(vm, &silent) == 0) {
		decide(v, true, WORKS);
	} else {
		last_words(vm->console_fd, words, sizeof(words));
		v->usable = false;
		(void)snprintf(v->sentence, sizeof(v->sentence), "KVM opens, but guests do not start: using TCG (%s)",
			       words[0] != '\0' ? words : "no answer in 3 s");
	}
	end(&process);
	return 0;
}

int kvm_probe(const struct kvm_probe_opts *opts, struct kvm_verdict *ret, struct err *err)
{
	int rc = kvm_probe_cached(opts->cache_fd, ret, err);

	if (rc != KVM_UNKNOWN)
		return rc;
	rc = try_guest(opts, ret, err);
	if (rc < 0)
		return err_wrap(err, "try KVM");
	return write_cache(opts->cache_fd, ret, err);
}
