/*
 * Streams between a shim and its VM, under TCG: bytes per second into a process and out of one, through a connection to
 * a service both ways, into a file by a tar and out of it, and how long a process takes that does nothing.
 *
 *	streams SHARE [MEGABYTES [PROCESSES]]
 *
 * Floors, in the same run: the same bytes through a virtio-serial port of their own, without frames or credit, both
 *ways; through a pipe within the VM, through a socket pair between two processes of this host; a process of this host
 *that does nothing. One object of JSON on standard output: MB/s and ms.
 */
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/tar.h"
#include "shim/vm_test.h"

enum { MEMORY_MB = 512, DISK_MB = 2048, PROCESSES_MAX = 1000 };

static struct test_vm vm;

static double mb_per_s(uint64_t bytes, int64_t from_ns)
{
	return (double)bytes / 1e6 / ((double)(clock_monotonic_ns() - from_ns) / 1e9);
}

/* What one exec takes of the bytes, whose script says when it has them. */
static int through_exec(const char *script, uint64_t in, uint64_t out, double *ret, struct err *err)
{
	struct test_stream t = {.made_up = in, .end = in > 0};
	int64_t from_ns = clock_monotonic_ns();

	int rc = test_vm_exec(&vm, script, &t, err);
	test_stream_fini(&t);
	if (rc < 0)
		return rc;
	if (t.status != 0 || t.got != out)
		return err_set(err, ERR_INTERNAL, "'%s' ended with %#x and %llu bytes", script, t.status,
			       (unsigned long long)t.got);
	*ret = mb_per_s(in > 0 ? in : out, from_ns);
	return 0;
}

static int out_of_exec(uint64_t bytes, double *ret, struct err *err)
{
	autofree char *script =
		xasprintf("exec dd if=/dev/zero bs=50000 count=%llu 2>/dev/null", (unsigned long long)bytes / 50000);

	return through_exec(script, 0, bytes, ret, err);
}

/* The time of the same script without bytes is in it too, as in the others. */
static int within_vm(const char *script, uint64_t bytes, double *ret, struct err *err)
{
	struct test_stream t = {0};
	int64_t from_ns = clock_monotonic_ns();

	int rc = test_vm_exec(&vm, script, &t, err);
	test_stream_fini(&t);
	if (rc == 0)
		*ret = mb_per_s(bytes, from_ns);
	return rc;
}

static int pipe_in_vm(uint64_t bytes, double *ret, struct err *err)
{
	autofree char *script =
		xasprintf("dd if=/dev/zero bs=50000 count=%llu 2>/dev/null | dd of=/dev/null bs=64k 2>/dev/null",
			  (unsigned long long)bytes / 50000);

	return within_vm(script, bytes, ret, err);
}

/* What the programs on both ends of a connection can do: busybox's nc has a buffer of 1 KiB. */
static int nc_in_vm(uint64_t bytes, double *ret, struct err *err)
{
	autofree char *script =
		xasprintf("mkfifo /tmp/open; exec 3<>/tmp/open; nc -l -p 9001 <&3 >/dev/null & "
			  "until netstat -tln | grep -q :9001; do :; done; "
			  "dd if=/dev/zero bs=50000 count=%llu 2>/dev/null | nc 127.0.0.1 9001 >/dev/null",
			  (unsigned long long)bytes / 50000);

	return within_vm(script, bytes, ret, err);
}

/* --- a connection of the job to a service --- */

static int start_script(const char *script, struct test_stream *t, struct err *err)
{
	static struct guest_open open;

	open = (struct guest_open){.kind = GUEST_KIND_EXEC};
	open.exec = (struct guest_exec){.argc = 3, .argv = {"sh", "-c", script}, .cwd = "", .user = ""};
	return test_stream_open(&vm, &open, t, err);
}

/* An end from here would end nc before it has sent all. */
static int take_all(struct test_stream *t, uint64_t bytes, struct err *err)
{
	int rc = 0;

	while (rc == 0 && t->got < bytes && !t->closed)
		rc = loop_step(vm.loop, clock_monotonic_ns() + TEST_VM_WAIT_S * NS_PER_S, err);
	if (rc == 0 && t->stream != NULL && bytes > 0)
		stream_end(t->stream);
	return rc;
}

/* To the end of the connection, which nc makes of the end of its input. */
static int through_service(const char *script, uint64_t in, uint64_t out, double *ret, struct err *err)
{
	struct test_stream service = {.made_up = in, .end = in > 0}, run = {0};
	int64_t from_ns = clock_monotonic_ns();

	vm.next_service = &service;
	int rc = start_script(script, &run, err);
	if (rc == 0)
		rc = take_all(&service, out, err);
	if (rc == 0)
		rc = test_vm_wait(&vm, &service.closed, err);
	if (rc == 0 && (service.got != out || service.made_up > 0))
		rc = err_set(err, ERR_INTERNAL, "'%s' sent %llu bytes: %s", script, (unsigned long long)service.got,
			     service.why);
	if (rc == 0)
		*ret = mb_per_s(in > 0 ? in : out, from_ns);
	return rc == 0 ? test_vm_wait(&vm, &run.closed, err) : rc;
}

static int service_both_ways(uint64_t bytes, double *ret_in, double *ret_out, struct err *err)
{
	autofree char *in = xasprintf("nc 127.0.0.1 %d </dev/null >/dev/null", TEST_VM_PORT);
	autofree char *out = xasprintf("dd if=/dev/zero bs=50000 count=%llu 2>/dev/null | nc 127.0.0.1 %d >/dev/null",
				       (unsigned long long)bytes / 50000, TEST_VM_PORT);

	int rc = through_service(in, bytes, 0, ret_in, err);
	return rc == 0 ? through_service(out, 0, bytes, ret_out, err) : rc;
}

/* --- what the channel is made of, bare: the guest has been told what to run, so nobody else need be heard --- */

static int raw_in(uint64_t bytes, double *ret, struct err *err)
{
	static char piece[GUEST_OUTPUT_MAX];
	autofree char *script =
		xasprintf("exec dd if=" TEST_VM_RAW " of=/dev/null bs=50000 iflag=fullblock count=%llu 2>/dev/null",
			  (unsigned long long)bytes / 50000);
	struct test_stream run = {0};
	int64_t from_ns = clock_monotonic_ns();

	int rc = start_script(script, &run, err);
	for (uint64_t left = bytes; rc == 0 && left > 0;) {
		ssize_t sent =
			send(vm.raw_fd, piece, left < sizeof(piece) ? (size_t)left : sizeof(piece), MSG_NOSIGNAL);
		if (sent <= 0)
			return err_sys(err, "write to the port");
		left -= (uint64_t)sent;
	}
	if (rc == 0)
		rc = test_vm_wait(&vm, &run.closed, err);
	if (rc == 0)
		*ret = mb_per_s(bytes, from_ns);
	return rc;
}

static int raw_out(uint64_t bytes, double *ret, struct err *err)
{
	static char piece[GUEST_OUTPUT_MAX];
	autofree char *script = xasprintf("exec dd if=/dev/zero of=" TEST_VM_RAW " bs=50000 count=%llu 2>/dev/null",
					  (unsigned long long)bytes / 50000);
	struct test_stream run = {0};
	int64_t from_ns = clock_monotonic_ns();

	int rc = start_script(script, &run, err);
	for (uint64_t left = bytes; rc == 0 && left > 0;) {
		ssize_t got = recv(vm.raw_fd, piece, sizeof(piece), 0);
		if (got <= 0)
			return err_sys(err, "read from the port");
		left -= (uint64_t)got;
	}
	if (rc == 0)
		*ret = mb_per_s(bytes, from_ns);
	return rc == 0 ? test_vm_wait(&vm, &run.closed, err) : rc;
}

static int archive(const struct guest_open *open, struct test_stream *t, uint64_t bytes, double *ret, struct err *err)
{
	int64_t from_ns = clock_monotonic_ns();

	int rc = test_stream_open(&vm, open, t, err);
	if (rc == 0)
		rc = test_vm_wait(&vm, &t->closed, err);
	if (rc == 0 && t->status != GUEST_CLOSE_OK)
		rc = err_set(err, ERR_INTERNAL, "%s", t->why);
	if (rc == 0)
		*ret = mb_per_s(bytes, from_ns);
	return rc;
}

static int archives(uint64_t bytes, double *ret_in, double *ret_out, struct err *err)
{
	static const struct guest_open unpack = {.kind = GUEST_KIND_UNPACK, .name = "/work"};
	static const struct guest_open pack = {.kind = GUEST_KIND_PACK, .pack = {.count = 1, .paths = {"/work/big"}}};
	const struct tar_entry entry = {
		.kind = TAR_FILE, .path = "big", .target = "", .mode = 0640, .mtime_ns = NS_PER_S, .size = bytes};
	autovar(buf) head = {0};

	int rc = tar_entry_encode(&entry, &head, err);
	if (rc < 0)
		return rc;
	struct test_stream in = {
		.input = buf_str(&head), .made_up = bytes + tar_padding(bytes) + 2 * TAR_BLOCK, .end = true};
	struct test_stream out = {0};
	rc = archive(&unpack, &in, bytes, ret_in, err);
	return rc == 0 ? archive(&pack, &out, bytes, ret_out, err) : rc;
}

/* --- floors of this host --- */

static int socket_pair(uint64_t bytes, double *ret, struct err *err)
{
	static char piece[GUEST_OUTPUT_MAX];
	int ends[2], status;
	int64_t from_ns = clock_monotonic_ns();

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return err_sys(err, "make a socket pair");
	pid_t pid = fork();
	if (pid == 0) {
		for (uint64_t left = bytes; left > 0;) {
			ssize_t sent = write(ends[1], piece, left < sizeof(piece) ? (size_t)left : sizeof(piece));
			if (sent <= 0)
				_exit(1);
			left -= (uint64_t)sent;
		}
		_exit(0);
	}
	(void)close(ends[1]);
	while (read(ends[0], piece, sizeof(piece)) > 0)
		;
	(void)close(ends[0]);
	*ret = mb_per_s(bytes, from_ns);
	return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : err_set(err, ERR_INTERNAL, "the writer failed");
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), by_value);
	return values[count / 2];
}

static int nothing_in_vm(struct err *err)
{
	static const struct guest_open open = {.kind = GUEST_KIND_EXEC,
					       .exec = {.argc = 1, .argv = {"true"}, .cwd = "", .user = ""}};
	struct test_stream t = {0};

	int rc = test_stream_open(&vm, &open, &t, err);
	if (rc == 0)
		rc = test_vm_wait(&vm, &t.closed, err);
	return rc == 0 && t.status != 0 ? err_set(err, ERR_INTERNAL, "'true' ended with %#x", t.status) : rc;
}

static int nothing_here(struct err *err)
{
	static char name[] = "true";
	char *const argv[] = {name, NULL};
	pid_t pid;
	int status;

	if (posix_spawn(&pid, "/bin/true", NULL, NULL, argv, NULL) != 0 || waitpid(pid, &status, 0) != pid)
		return err_sys(err, "run /bin/true");
	return 0;
}

static int time_of(int (*run)(struct err *), size_t count, double *ret, struct err *err)
{
	static double times[PROCESSES_MAX];
	int rc = 0;

	for (size_t i = 0; i < count && rc == 0; i++) {
		int64_t from_ns = clock_monotonic_ns();
		rc = run(err);
		times[i] = (double)(clock_monotonic_ns() - from_ns) / 1e6;
	}
	if (rc == 0)
		*ret = median(times, count);
	return rc;
}

struct figures {
	double in, out, service_in, service_out, raw_in, raw_out, nc, unpack, pack, pipe, pair, process, process_floor;
};

static int measure(uint64_t bytes, size_t processes, struct figures *f, struct err *err)
{
	int rc = through_exec("exec dd of=/dev/null bs=64k 2>/dev/null", bytes, 0, &f->in, err);

	if (rc == 0)
		rc = out_of_exec(bytes, &f->out, err);
	if (rc == 0)
		rc = service_both_ways(bytes, &f->service_in, &f->service_out, err);
	if (rc == 0)
		rc = raw_in(bytes, &f->raw_in, err);
	if (rc == 0)
		rc = raw_out(bytes, &f->raw_out, err);
	if (rc == 0)
		rc = archives(bytes, &f->unpack, &f->pack, err);
	if (rc == 0)
		rc = pipe_in_vm(bytes, &f->pipe, err);
	if (rc == 0)
		rc = nc_in_vm(bytes, &f->nc, err);
	if (rc == 0)
		rc = socket_pair(bytes, &f->pair, err);
	if (rc == 0)
		rc = time_of(nothing_in_vm, processes, &f->process, err);
	return rc == 0 ? time_of(nothing_here, processes, &f->process_floor, err) : rc;
}

int main(int argc, char **argv)
{
	struct err err = {0};
	struct figures f = {0};
	int64_t megabytes = 100, processes = 50;

	if (argc < 2 || (argc > 2 && str_to_i64(str_c(argv[2]), "MEGABYTES", 1, 1000, &megabytes, &err) < 0) ||
	    (argc > 3 && str_to_i64(str_c(argv[3]), "PROCESSES", 1, PROCESSES_MAX, &processes, &err) < 0)) {
		(void)fprintf(stderr, "streams SHARE [MEGABYTES [PROCESSES]] %s\n", err.msg);
		return 2;
	}
	int rc = test_vm_boot(&vm, argv[1], MEMORY_MB, DISK_MB, &err);
	if (rc == 0)
		rc = test_vm_start_job(&vm, "exec sleep 100000", &err);
	if (rc == 0)
		rc = measure((uint64_t)megabytes * 1000000, (size_t)processes, &f, &err);
	test_vm_end(&vm);
	if (rc < 0) {
		(void)fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	(void)printf("{\"service_in\": %.1f, \"service_out\": %.1f, \"raw_in\": %.1f, \"raw_out\": %.1f, \"nc_in_vm\": "
		     "%.1f, ",
		     f.service_in, f.service_out, f.raw_in, f.raw_out, f.nc);
	(void)printf("\"megabytes\": %lld, \"in\": %.1f, \"out\": %.1f, \"unpack\": %.1f, \"pack\": %.1f, "
		     "\"pipe_in_vm\": %.1f, \"socket_pair\": %.1f, \"process_ms\": %.2f, \"process_here_ms\": %.2f}\n",
		     (long long)megabytes, f.in, f.out, f.unpack, f.pack, f.pipe, f.pair, f.process, f.process_floor);
	return 0;
}
