/* What QEMU is told, without starting it: any executable stands in for it. */
#include "vm/qemu.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "proto/guest_window.h"

static const char *argument_after(const struct vm_launch *l, const char *option)
{
	for (size_t i = 0; i + 1 < l->argc; i++) {
		if (strcmp(l->argv[i], option) == 0)
			return l->argv[i + 1];
	}
	fail_msg("no %s", option);
	return NULL;
}

static bool has_argument(const struct vm_launch *l, const char *text)
{
	for (size_t i = 0; i < l->argc; i++) {
		if (strstr(l->argv[i], text) != NULL)
			return true;
	}
	return false;
}

static int prepare(struct vm_spec spec, struct vm **ret, struct err *err)
{
	autoclose null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	spec.name = "7-1";
	spec.dir_fd = -1;
	spec.kernel_fd = spec.initrd_fd = spec.root_fd = null;
	if (spec.scratch_fd == 0)
		spec.scratch_fd = null;
	spec.program = "/bin/true";
	spec.tsc_khz = 1000;
	return vm_prepare(vm_driver_by_name(STR("qemu")), &spec, ret, err);
}

static void tcg_gets_the_counters_rate(void **state)
{
	autoptr(vm) vm = NULL;

	(void)state;
	assert_int_equal(prepare((struct vm_spec){.vcpus = 2, .memory_mb = 256}, &vm, NULL), 0);
	const char *line = argument_after(&vm->launch, "-append");
	assert_non_null(strstr(line, "tsc_early_khz=1000 lpj=4000"));
	assert_non_null(strstr(line, "mitigations=off"));
	assert_string_equal(argument_after(&vm->launch, "-machine"), "microvm,acpi=on,accel=tcg");
	assert_string_equal(argument_after(&vm->launch, "-smp"), "2");
	assert_string_equal(argument_after(&vm->launch, "-m"), "256");
	assert_non_null(strstr(argument_after(&vm->launch, "-sandbox"), "spawn=deny"));
}

static void kvm_keeps_its_mitigations(void **state)
{
	autoptr(vm) vm = NULL;

	(void)state;
	assert_int_equal(prepare((struct vm_spec){.vcpus = 1, .memory_mb = 256, .accel = VM_KVM}, &vm, NULL), 0);
	assert_false(has_argument(&vm->launch, "mitigations=off"));
	assert_false(has_argument(&vm->launch, "tsc_early_khz"));
	assert_string_equal(argument_after(&vm->launch, "-cpu"), "host");
}

static void a_network_device_only_where_it_is_wanted(void **state)
{
	autoptr(vm) none = NULL;
	autoptr(vm) open_vm = NULL;
	autoptr(vm) template = NULL;
	autoclose fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(prepare((struct vm_spec){.vcpus = 1, .memory_mb = 256}, &none, NULL), 0);
	assert_false(has_argument(&none->launch, "netdev"));
	assert_false(has_argument(&none->launch, "virtio-net"));
	assert_true(has_argument(&none->launch, "-nodefaults"));
	assert_int_equal(prepare((struct vm_spec){.vcpus = 1, .memory_mb = 256, .network = true, .network_fd = fd},
				 &open_vm, NULL),
			 0);
	assert_non_null(
		strstr(argument_after(&open_vm->launch, "-netdev"), "stream,id=network,server=off,addr.type=fd"));
	assert_true(has_argument(&open_vm->launch, "virtio-net-device,netdev=network"));
	assert_int_equal(prepare((struct vm_spec){.vcpus = 1, .memory_mb = 256, .network = true, .network_fd = -1},
				 &template, NULL),
			 0);
	assert_string_equal(argument_after(&template->launch, "-netdev"), "hubport,id=network,hubid=0");
}

static void descriptors_are_passed_not_paths(void **state)
{
	autoptr(vm) vm = NULL;
	struct vm_launch *l;
	int fd;

	(void)state;
	assert_int_equal(prepare((struct vm_spec){.vcpus = 1, .memory_mb = 256}, &vm, NULL), 0);
	l = &vm->launch;
	assert_non_null(strstr(argument_after(l, "-kernel"), "/proc/self/fd/"));
	assert_true(has_argument(l, "file=/dev/fdset/1,if=none,id=root,format=raw,readonly=on"));
	assert_true(has_argument(l, "file=/dev/fdset/2,if=none,id=scratch"));
	assert_true(has_argument(l, "file=/dev/fdset/3,if=none,id=window"));
	/* Kernel, initrd, channel, standard output and error, control, three disks: each under a number of its own. */
	assert_int_equal(l->fd_count, 9);
	for (size_t i = 0; i < l->fd_count; i++) {
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(l->fds[i].child_fd, l->fds[j].child_fd);
	}
	assert_int_equal(vm_connect(vm, &fd, NULL), 0);
	assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
	fd_close(&fd);
	assert_int_equal(vm_connect(vm, &fd, NULL), -ERR_INTERNAL);
}

/* Whoever has taken the VMM over can neither fill the host's memory by it nor take it away from under the shim. */
static void the_windows_size_is_for_ever(void **state)
{
	autoptr(vm) vm = NULL;
	struct stat st;

	(void)state;
	assert_int_equal(prepare((struct vm_spec){.vcpus = 1, .memory_mb = 256, .scratch_fd = -1}, &vm, NULL), 0);
	assert_int_equal(fstat(vm->window_fd, &st), 0);
	assert_int_equal(st.st_size, GUEST_WINDOW_SIZE);
	assert_int_equal(ftruncate(vm->window_fd, GUEST_WINDOW_SIZE + 1), -1);
	assert_int_equal(ftruncate(vm->window_fd, 0), -1);
	assert_int_equal(vm->launch.file_size_max, GUEST_WINDOW_SIZE);
}

/* The same machine but for where its memory and its beginning come from. */
static void a_clone_is_told_no_kernel(void **state)
{
	autoptr(vm) template = NULL;
	autoptr(vm) clone = NULL;
	autoclose file = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct vm_spec spec = {.vcpus = 1, .memory_mb = 256, .memory_fd = file, .state_fd = file};

	(void)state;
	spec.origin = VM_TEMPLATE;
	assert_int_equal(prepare(spec, &template, NULL), 0);
	spec.origin = VM_CLONE;
	assert_int_equal(prepare(spec, &clone, NULL), 0);
	assert_true(has_argument(&template->launch, "size=256M,mem-path=/proc/self/fd/"));
	assert_true(has_argument(&template->launch, "share=on"));
	assert_true(has_argument(&clone->launch, "share=off"));
	assert_string_equal(argument_after(&clone->launch, "-incoming"), "defer");
	assert_false(has_argument(&clone->launch, "-kernel"));
	assert_false(has_argument(&clone->launch, "-append"));
	assert_false(has_argument(&template->launch, "-incoming"));
	assert_string_equal(argument_after(&clone->launch, "-machine"), argument_after(&template->launch, "-machine"));
	assert_string_equal(argument_after(&clone->launch, "-cpu"), argument_after(&template->launch, "-cpu"));
}

static void without_a_scratch_disk_there_is_none(void **state)
{
	autoptr(vm) vm = NULL;

	(void)state;
	assert_int_equal(prepare((struct vm_spec){.vcpus = 1, .memory_mb = 256, .scratch_fd = -1}, &vm, NULL), 0);
	assert_false(has_argument(&vm->launch, "scratch"));
}

static void limits_are_named(void **state)
{
	static const struct {
		unsigned vcpus, memory_mb;
		const char *names;
	} cases[] = {
		{0, 256, "vcpus"},
		{VM_VCPUS_MAX + 1, 256, "vcpus"},
		{1, VM_MEMORY_MB_MIN - 1, "memory_mb"},
		{1, VM_MEMORY_MB_MAX + 1, "memory_mb"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct vm *vm = NULL;
		struct err err = {0};
		const struct vm_spec spec = {.vcpus = cases[i].vcpus, .memory_mb = cases[i].memory_mb};
		assert_int_equal(prepare(spec, &vm, &err), -ERR_INVALID_FIELD);
		assert_non_null(strstr(err.msg, cases[i].names));
		assert_null(vm);
	}
}

static void a_missing_program_is_named(void **state)
{
	autofree char *path = NULL;
	struct err err = {0};

	(void)state;
	assert_int_equal(vm_find_program("no-such-vmm", &path, &err), -ERR_UNAVAILABLE);
	assert_non_null(strstr(err.msg, "no-such-vmm"));
	assert_int_equal(vm_find_program("/no/such/vmm", &path, &err), -ERR_UNAVAILABLE);
	assert_int_equal(vm_find_program("sh", &path, &err), 0);
	assert_int_equal(path[0], '/');
	assert_null(vm_driver_by_name(STR("xen")));
}

/* The launch specification is executed as it says. */
static void a_launch_does_what_it_says(void **state)
{
	struct vm_launch l;
	struct process process;
	struct process_exit end;
	struct err err = {0};
	char said[512] = {0};
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	vm_launch_init(&l, "/bin/sh");
	const char *const args[] = {"vmm", "-c", "read x; grep NoNewPrivs /proc/self/status; ulimit -c; exit $((0$x))"};
	for (size_t i = 0; i < ARRAY_LEN(args); i++)
		vm_launch_arg(&l, "%s", args[i]);
	vm_launch_output(&l, ends[1]);
	if (vm_launch(&l, &process, &err) < 0)
		fail_msg("%s", err.msg);
	size_t len = 0;
	for (ssize_t got; (got = read(ends[0], said + len, sizeof(said) - 1 - len)) > 0;)
		len += (size_t)got;
	assert_int_equal(process_wait(&process, INT64_MAX, &end, &err), 0);
	assert_string_equal(said, "NoNewPrivs:\t1\n0\n");
	assert_int_equal(end.code, 0);
	(void)close(ends[0]);
	vm_launch_fini(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_network_device_only_where_it_is_wanted),
		cmocka_unit_test(tcg_gets_the_counters_rate),
		cmocka_unit_test(kvm_keeps_its_mitigations),
		cmocka_unit_test(descriptors_are_passed_not_paths),
		cmocka_unit_test(a_clone_is_told_no_kernel),
		cmocka_unit_test(the_windows_size_is_for_ever),
		cmocka_unit_test(without_a_scratch_disk_there_is_none),
		cmocka_unit_test(limits_are_named),
		cmocka_unit_test(a_missing_program_is_named),
		cmocka_unit_test(a_launch_does_what_it_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
