/*
 * Cold boots of the demo rootfs, one after the other, as a shim does them: medians of the parts, in milliseconds.
 *
 *	cold_boot SHARE [BOOTS [MEMORY_MB [VCPUS [WORD]]]]
 *
 * "vmm" is what passes before the guest's clock begins to run (QEMU's start, the kernel's first steps), "kernel" until
 * PID 1 runs, "guest" until it has acknowledged the hello, "job" until the job's process is started. "prepare" comes
 * before them: scratch disk, arguments, sockets. One object of JSON on standard output.
 *
 * With WORD, the static program of word.c: "floor" is the same QEMU, kernel and disks with that as its PID 1, from the
 * VMM's start to its word on the console; the two take turns.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/assets.h"
#include "vm/driver.h"
#include "vm/handshake.h"
#include "vm/initramfs.h"
#include "vm/scratch.h"
#include "vm/tsc.h"

enum { BOOTS_MAX = 1000, DEADLINE_S = 60, SCRATCH_MB = 1024 };

enum part { PREPARE, VMM, KERNEL, GUEST, JOB, TOTAL, FLOOR, PARTS };
static const char *const part_names[PARTS] = {"prepare", "vmm", "kernel", "guest", "job", "total", "floor"};

struct bench {
	char dir[64];
	int dir_fd;
	int64_t boots, memory_mb, vcpus;
	int64_t tsc_khz;
	int floor_fd; /* an initial RAM disk with the word; -1: none */
	int64_t times[PARTS][BOOTS_MAX];
};

/* An initial RAM disk that holds nothing but the program. */
static int make_floor(struct bench *b, const char *word, struct err *err)
{
	enum { WORD_MAX = 4 << 20 };
	autovar(buf) program = {0};
	autovar(buf) archive = {0};

	int rc = file_read(AT_FDCWD, word, WORD_MAX, &program, err);
	if (rc < 0)
		return rc;
	cpio_dir(&archive, "dev");
	cpio_char_device(&archive, "dev/console", 0600, 5, 1);
	cpio_file(&archive, "init", 0755, buf_str(&program));
	cpio_end(&archive);
	b->floor_fd = memfd_create("word", MFD_CLOEXEC);
	if (b->floor_fd < 0)
		return err_sys(err, "make an initial RAM disk");
	return file_write_fd(b->floor_fd, buf_str(&archive), err);
}

static int open_parts(const struct bench *b, struct vm_spec *spec, struct err *err)
{
	int rc = assets_open_kernel(b->dir_fd, &spec->kernel_fd, err);

	if (rc == 0)
		rc = assets_open_initrd(b->dir_fd, &spec->initrd_fd, err);
	if (rc == 0)
		rc = assets_open_rootfs(b->dir_fd, STR("demo"), &spec->root_fd, err);
	return rc == 0 ? scratch_create(b->dir_fd, b->dir_fd, SCRATCH_MB, &spec->scratch_fd, err) : rc;
}

/* From a running VMM to a running job. */
static int talk(struct vm *vm, int64_t launched_ns, int64_t times[PARTS], struct err *err)
{
	static struct vm_reader reader;
	static const struct guest_job job = {.cwd = "", .argc = 1, .argv = {"/bin/true"}};
	autovar(buf) out = {0};
	autoclose fd = -1;
	struct guest_hello hello;
	struct guest_ack ack;
	struct guest_frame frame;
	int64_t deadline_ns = launched_ns + DEADLINE_S * NS_PER_S;

	vm_hello("bench", &hello);
	int rc = vm_connect(vm, &fd, err);
	if (rc == 0)
		rc = vm_handshake(fd, &hello, &reader, deadline_ns, &ack, err);
	int64_t acked_ns = clock_monotonic_ns();
	if (rc == 0)
		rc = guest_job_encode(&job, &out, err);
	if (rc == 0)
		rc = file_write_fd(fd, buf_str(&out), err);
	if (rc == 0)
		rc = vm_read_frame(fd, &reader, deadline_ns, &frame, err);
	if (rc < 0)
		return rc;
	int64_t started_ns = clock_monotonic_ns();
	times[VMM] = acked_ns - launched_ns - ack.ack_ns;
	times[KERNEL] = ack.init_ns;
	times[GUEST] = ack.ack_ns - ack.init_ns;
	times[JOB] = started_ns - acked_ns;
	times[TOTAL] = started_ns - launched_ns;
	return 0;
}

static int wait_for_word(struct vm *vm, int64_t launched_ns, int64_t times[PARTS], struct err *err)
{
	char said[4096];
	size_t len = 0;

	while (len < sizeof(said) - 1) {
		struct pollfd p = {.fd = vm->console_fd, .events = POLLIN};
		if (poll(&p, 1, DEADLINE_S * 1000) <= 0)
			return err_set(err, ERR_TIMEOUT, "the guest says no word");
		ssize_t got = read(vm->console_fd, said + len, sizeof(said) - 1 - len);
		if (got <= 0)
			return err_set(err, ERR_UNAVAILABLE, "the VM is gone");
		len += (size_t)got;
		said[len] = '\0';
		if (strstr(said, "a word") != NULL) {
			times[FLOOR] = clock_monotonic_ns() - launched_ns;
			return 0;
		}
	}
	return err_set(err, ERR_TOO_LARGE, "the guest says more than its word");
}

static int boot(struct bench *b, bool floor, int64_t times[PARTS], struct err *err)
{
	autoclose kernel = -1;
	autoclose initrd = -1;
	autoclose root = -1;
	autoclose scratch = -1;
	autoptr(vm) vm = NULL;
	struct vm_spec spec = {.name = "bench",
			       .dir_fd = -1,
			       .scratch_fd = -1,
			       .vcpus = (unsigned)b->vcpus,
			       .memory_mb = (unsigned)b->memory_mb,
			       .tsc_khz = b->tsc_khz};
	struct process process;
	struct process_exit end;
	int64_t begin_ns = clock_monotonic_ns();

	spec.kernel_fd = spec.initrd_fd = spec.root_fd = -1;
	int rc = open_parts(b, &spec, err);
	kernel = spec.kernel_fd;
	initrd = spec.initrd_fd;
	root = spec.root_fd;
	scratch = spec.scratch_fd;
	if (floor)
		spec.initrd_fd = b->floor_fd;
	if (rc == 0)
		rc = vm_prepare(vm_driver_by_name(STR("qemu")), &spec, &vm, err);
	if (rc < 0)
		return rc;
	int64_t launched_ns = clock_monotonic_ns();
	rc = vm_launch(&vm->launch, &process, err);
	if (rc < 0)
		return rc;
	if (!floor)
		times[PREPARE] = launched_ns - begin_ns;
	rc = floor ? wait_for_word(vm, launched_ns, times, err) : talk(vm, launched_ns, times, err);
	int end_rc = process_signal(&process, SIGKILL, err);
	if (end_rc == 0)
		end_rc = process_wait(&process, clock_monotonic_ns() + DEADLINE_S * NS_PER_S, &end, err);
	return rc < 0 ? rc : end_rc;
}

static int run(struct bench *b, const char *share, struct err *err)
{
	int64_t times[PARTS] = {0};

	(void)snprintf(b->dir, sizeof(b->dir), "/tmp/nimbus-bench-boot.XXXXXX");
	if (mkdtemp(b->dir) == NULL)
		return err_sys(err, "make a folder");
	int rc = assets_install(share, b->dir, err);
	if (rc == 0)
		rc = dir_open(b->dir, &b->dir_fd, err);
	b->tsc_khz = tsc_khz();
	/* The first fills the caches and does not count. */
	for (int64_t i = -1; i < b->boots && rc == 0; i++) {
		rc = boot(b, false, times, err);
		if (rc == 0 && b->floor_fd >= 0)
			rc = boot(b, true, times, err);
		for (size_t part = 0; part < PARTS && i >= 0; part++)
			b->times[part][i] = times[part];
	}
	fd_close(&b->dir_fd);
	int remove_rc = dir_remove(AT_FDCWD, b->dir, rc == 0 ? err : NULL);
	return rc < 0 ? rc : remove_rc;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double ms(int64_t ns)
{
	return (double)ns / (double)NS_PER_MS;
}

static void report(struct bench *b)
{
	(void)printf("{\"boots\": %lld, \"memory_mb\": %lld, \"vcpus\": %lld", (long long)b->boots,
		     (long long)b->memory_mb, (long long)b->vcpus);
	for (size_t part = 0; part < PARTS; part++) {
		qsort(b->times[part], (size_t)b->boots, sizeof(int64_t), compare);
		(void)printf(", \"%s_ms\": %.1f", part_names[part], ms(b->times[part][b->boots / 2]));
	}
	(void)printf(", \"total_min_ms\": %.1f, \"total_max_ms\": %.1f}\n", ms(b->times[TOTAL][0]),
		     ms(b->times[TOTAL][b->boots - 1]));
}

int main(int argc, char **argv)
{
	static struct bench b = {.dir_fd = -1, .floor_fd = -1, .boots = 10, .memory_mb = 256, .vcpus = 2};
	struct err err = {0};
	int rc = argc > 1 ? 0 : err_set(&err, ERR_INVALID, "usage: cold_boot SHARE [BOOTS [MEMORY_MB [VCPUS [WORD]]]]");

	if (rc == 0 && argc > 2)
		rc = str_to_i64(str_c(argv[2]), "BOOTS", 1, BOOTS_MAX, &b.boots, &err);
	if (rc == 0 && argc > 3)
		rc = str_to_i64(str_c(argv[3]), "MEMORY_MB", VM_MEMORY_MB_MIN, VM_MEMORY_MB_MAX, &b.memory_mb, &err);
	if (rc == 0 && argc > 4)
		rc = str_to_i64(str_c(argv[4]), "VCPUS", 1, VM_VCPUS_MAX, &b.vcpus, &err);
	if (rc == 0 && argc > 5)
		rc = make_floor(&b, argv[5], &err);
	if (rc == 0)
		rc = run(&b, argv[1], &err);
	fd_close(&b.floor_fd);
	if (rc < 0) {
		(void)fprintf(stderr, "cold_boot: %s\n", err.msg);
		return 1;
	}
	report(&b);
	return 0;
}
