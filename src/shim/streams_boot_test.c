/*
 * Streams in a real VM: the shim's channel and streams against nimbus-guest, under TCG. One VM for all, in which a job
 * sleeps; skipped, with the reason, where QEMU or the built assets are missing. NIMBUS_CHAOS=full: with 200 MB.
 */
#include "shim/vm_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/tar.h"

enum { MEMORY_MB = 512, DISK_MB = 1024, STDIN_BYTES = 10 * 1000 * 1000, RSS_MAX_KB = 16 * 1024 };

static struct test_vm vm;
static const char *missing; /* why all is skipped */

#define OK(call)                                            \
	do {                                                \
		struct err *e_ = &(struct err){0};          \
		int rc_ = (call);                           \
		if (rc_ < 0)                                \
			fail_msg("%s: %s", #call, e_->msg); \
	} while (0)

static const char *text_of(const struct test_stream *t, int part)
{
	return t->text[part].data != NULL ? t->text[part].data : "";
}

/* What a script in the VM says, which ends well. */
static char *ask(const char *script)
{
	struct test_stream t = {.keep = 100000};

	OK(test_vm_exec(&vm, script, &t, e_));
	if (t.status != 0)
		fail_msg("'%s' ended with %#x: %s", script, t.status, text_of(&t, 2));
	char *text = xstrdup(text_of(&t, 1));
	test_stream_fini(&t);
	return text;
}

static void assert_says(const char *script, const char *want)
{
	autofree char *text = ask(script);

	assert_string_equal(text, want);
}

static void a_process_is_in_the_jobs_surroundings(void **state)
{
	(void)state;
	assert_says("echo $COLOUR; pwd; hostname; id -u", "red\n/tmp\nstreams\n0\n");
	/* In a cgroup below the job's, which it sees as the root. */
	assert_says("cut -d: -f3 /proc/self/cgroup | sed 's/exec-.*/exec/'", "/exec\n");
	struct test_stream t = {.keep = 1000};
	OK(test_vm_exec(&vm, "echo problem >&2; exit 42", &t, e_));
	assert_int_equal(t.status, 42);
	assert_string_equal(text_of(&t, 2), "problem\n");
	test_stream_fini(&t);
}

static void what_a_process_leaves_behind_is_killed(void **state)
{
	(void)state;
	/* In a session of its own, deaf to all, with the output open. */
	assert_says("setsid sh -c \"trap '' TERM HUP; exec sleep 4711\" & echo left", "left\n");
	assert_says("ps | grep -c '[s]leep 4711' || true", "0\n");
}

static void a_terminal_is_one(void **state)
{
	static struct guest_open open = {
		.kind = GUEST_KIND_EXEC,
		.exec = {.argc = 3,
			 .argv = {"sh", "-c",
				  "stty size; test -t 0 && test -t 1 && test -t 2 && echo all; "
				  "read x; stty size; echo got $x; exit 5"},
			 .cwd = "",
			 .user = "",
			 .tty = true,
			 .size = {.rows = 31, .cols = 77}}};
	struct test_stream t = {.keep = 10000};
	bool asked = false;

	(void)state;
	OK(test_stream_open(&vm, &open, &t, e_));
	while (!asked) {
		OK(loop_step(vm.loop, clock_monotonic_ns() + TEST_VM_WAIT_S * NS_PER_S, e_));
		asked = strstr(text_of(&t, 1), "all\r\n") != NULL;
	}
	stream_winsize(t.stream, (struct guest_winsize){.rows = 12, .cols = 34});
	stream_send(t.stream, STR("word\n"));
	OK(test_vm_wait(&vm, &t.closed, e_));
	assert_string_equal(text_of(&t, 1), "31 77\r\nall\r\nword\r\n12 34\r\ngot word\r\n");
	assert_int_equal(t.status, 5);
	test_stream_fini(&t);
}

/* Every byte, none twice, in order. */
static void input_comes_as_it_was_sent(void **state)
{
	char *bytes = xmalloc(STDIN_BYTES);

	(void)state;
	for (size_t i = 0; i < STDIN_BYTES; i++)
		bytes[i] = (char)(i * 2654435761U >> 13);
	struct test_stream t = {.input = {bytes, STDIN_BYTES}, .end = true, .keep = STDIN_BYTES};
	OK(test_vm_exec(&vm, "cat", &t, e_));
	assert_int_equal(t.status, 0);
	assert_int_equal(t.text[1].len, STDIN_BYTES);
	assert_memory_equal(t.text[1].data, bytes, STDIN_BYTES);
	test_stream_fini(&t);
	free(bytes);
}

static long guest_rss_kb(void)
{
	autofree char *text = ask("sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/1/status");
	int64_t kb;

	OK(str_to_i64(str_trim(str_c(text)), "VmHWM", 1, INT32_MAX, &kb, e_));
	return (long)kb;
}

static long own_rss_kb(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	return usage.ru_maxrss;
}

/* A file of that size, made up while it is sent. */
static void unpack_file(uint64_t size)
{
	static const struct guest_open open = {.kind = GUEST_KIND_UNPACK, .name = "/work/in"};
	const struct tar_entry entry = {
		.kind = TAR_FILE, .path = "big", .target = "", .mode = 0640, .mtime_ns = NS_PER_S, .size = size};
	autovar(buf) head = {0};

	OK(tar_entry_encode(&entry, &head, e_));
	struct test_stream t = {
		.input = buf_str(&head), .made_up = size + tar_padding(size) + 2 * TAR_BLOCK, .end = true};
	OK(test_stream_open(&vm, &open, &t, e_));
	OK(test_vm_wait(&vm, &t.closed, e_));
	if (t.status != GUEST_CLOSE_OK)
		fail_msg("%s", t.why);
}

static void files_go_in_and_come_out_in_constant_memory(void **state)
{
	static const struct guest_open open = {.kind = GUEST_KIND_PACK, .pack = {.count = 1, .paths = {"/work/in/."}}};
	const char *full = getenv("NIMBUS_CHAOS");
	uint64_t size = full != NULL && strcmp(full, "full") == 0 ? 200000000 : 20000000;
	autofree char *want = xasprintf("%llu 640\n", (unsigned long long)size);
	long own_before_kb = own_rss_kb();

	(void)state;
	unpack_file(size);
	assert_says("stat -c '%s %a' /work/in/big", want);
	struct test_stream t = {.keep = 0};
	OK(test_stream_open(&vm, &open, &t, e_));
	OK(test_vm_wait(&vm, &t.closed, e_));
	assert_int_equal(t.status, GUEST_CLOSE_OK);
	assert_true(t.got > size && t.got < size + 20 * TAR_BLOCK);
	test_stream_fini(&t);
	long guest_kb = guest_rss_kb();
	print_message("%llu bytes in and out: PID 1 of the guest %ld kB at most; this process %ld kB more\n",
		      (unsigned long long)size, guest_kb, own_rss_kb() - own_before_kb);
	assert_true(guest_kb < RSS_MAX_KB);
	assert_true(own_rss_kb() - own_before_kb < RSS_MAX_KB);
	autofree char *ignored = ask("rm -r /work");
	assert_string_equal(ignored, "");
}

static void a_full_disk_says_so(void **state)
{
	static const struct guest_open open = {.kind = GUEST_KIND_UNPACK, .name = "/dev/shm/in"};
	const struct tar_entry entry = {.kind = TAR_FILE, .path = "big", .target = "", .mode = 0644, .size = 20000000};
	autovar(buf) head = {0};

	(void)state;
	autofree char *mounted =
		ask("mkdir /dev/shm/in && mount -t tmpfs -o size=1m tmpfs /dev/shm/in && echo mounted");
	assert_string_equal(mounted, "mounted\n");
	OK(tar_entry_encode(&entry, &head, e_));
	struct test_stream t = {.input = buf_str(&head), .made_up = entry.size, .end = true};
	OK(test_stream_open(&vm, &open, &t, e_));
	OK(test_vm_wait(&vm, &t.closed, e_));
	assert_int_equal(t.status, GUEST_CLOSE_FAILED);
	assert_non_null(strstr(t.why, "'big'"));
	assert_non_null(strstr(t.why, "No space left"));
}

static bool skipped(void)
{
	if (missing != NULL)
		print_message("skipped: %s\n", missing);
	return missing != NULL;
}

/* The job ends last: with it what runs beside it; and files come out after it. */
static void the_job_ends_what_is_beside_it(void **state)
{
	static const struct guest_open sleeper = {
		.kind = GUEST_KIND_EXEC, .exec = {.argc = 2, .argv = {"sleep", "1000"}, .cwd = "", .user = ""}};
	static const struct guest_open pack = {.kind = GUEST_KIND_PACK,
					       .pack = {.count = 1, .paths = {"/etc/hostname"}}};
	struct test_stream beside = {0}, files = {.keep = 100000};

	(void)state;
	autofree char *ignored = ask("echo kept > /etc/hostname");
	OK(test_stream_open(&vm, &sleeper, &beside, e_));
	channel_send_signal(vm.channel, SIGTERM, NS_PER_S);
	OK(test_vm_wait(&vm, &beside.closed, e_));
	assert_true((beside.status & GUEST_CLOSE_SIGNALLED) != 0);
	OK(test_vm_wait(&vm, &vm.finished, e_));
	OK(test_stream_open(&vm, &pack, &files, e_));
	OK(test_vm_wait(&vm, &files.closed, e_));
	assert_int_equal(files.status, GUEST_CLOSE_OK);
	assert_non_null(memmem(files.text[0].data, files.text[0].len, "kept\n", 5));
	test_stream_fini(&files);
}

static int set_up(void **state)
{
	const char *share = getenv("NIMBUS_SHARE");
	autofree char *manifest = share != NULL ? xasprintf("%s/manifest", share) : NULL;
	struct err err = {0};

	(void)state;
	if (access("/usr/bin/qemu-system-x86_64", X_OK) != 0)
		missing = "qemu-system-x86_64 is not installed";
	else if (manifest == NULL || access(manifest, R_OK) != 0)
		missing = "the assets are not built ('make assets')";
	if (skipped())
		return 0;
	int rc = test_vm_boot(&vm, share, MEMORY_MB, DISK_MB, &err);
	if (rc == 0)
		rc = test_vm_start_job(&vm, "exec sleep 100000", &err);
	if (rc < 0)
		print_message("%s\n", err.msg);
	return rc < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (missing == NULL)
		test_vm_end(&vm);
	return 0;
}

static int each(void **state)
{
	(void)state;
	if (skipped())
		skip();
	return 0;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, each)
	const struct CMUnitTest tests[] = {
		T(a_process_is_in_the_jobs_surroundings),
		T(what_a_process_leaves_behind_is_killed),
		T(a_terminal_is_one),
		T(input_comes_as_it_was_sent),
		T(files_go_in_and_come_out_in_constant_memory),
		T(a_full_disk_says_so),
		T(the_job_ends_what_is_beside_it),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
