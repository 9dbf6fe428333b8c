#include "guest/system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/random.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "guest/names.h"
#include "guest/network.h"
#include "guest/verity.h"
#include "proto/guest_window.h"

enum {
	DEVICE_TRIES = 10000, /* of a millisecond each: all devices of a healthy machine are there in a few */
	PORT_TRIES = DEVICE_TRIES,
	COMMAND_LINE_MAX = 2048,
	VIRTIO_NETWORK = 1, /* the standard's number for such a device */
};

#define PORT_NAME "nimbus.0"
#define ROOT_SERIAL "nimbus-root"
#define SCRATCH_SERIAL "nimbus-scratch"

struct mount_point {
	const char *source;
	const char *target;
	const char *type;
	unsigned long flags;
	const char *data;
};

static void pause_ms(void)
{
	(void)nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
}

static int make_dir(const char *path, struct err *err)
{
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		return err_sys(err, "make the folder %s", path);
	return 0;
}

static int do_mount(const struct mount_point *m, struct err *err)
{
	int rc = make_dir(m->target, err);

	if (rc < 0)
		return rc;
	if (mount(m->source, m->target, m->type, m->flags, m->data) != 0)
		return err_sys(err, "mount %s on %s", m->source, m->target);
	return 0;
}

static int mount_all(const struct mount_point *mounts, size_t count, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < count && rc == 0; i++)
		rc = do_mount(&mounts[i], err);
	return rc;
}

/* One short text of /proc or /sys, without the newline. */
static bool read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, text, size - 1) : -1;

	if (fd >= 0)
		(void)close(fd);
	if (len < 0)
		return false;
	text[len] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return true;
}

static bool write_text(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
	size_t len = strlen(text);
	bool done = fd >= 0 && write(fd, text, len) == (ssize_t)len;

	if (fd >= 0)
		(void)close(fd);
	return done;
}

/* --- drivers --- */

static int load_module(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, "open %s", path);
	long rc = syscall(SYS_finit_module, fd, "", 0);
	int error = errno;
	(void)close(fd);
	errno = error;
	if (rc != 0 && error != EEXIST)
		return err_sys(err, "load %s", path);
	return 0;
}

/* The list is in the order in which the drivers need one another. */
static int load_modules(const char *path, struct err *err)
{
	char line[PATH_MAX];
	FILE *list = fopen(path, "re");
	int rc = 0;

	if (list == NULL)
		return err_sys(err, "open %s", path);
	while (rc == 0 && fgets(line, sizeof(line), list) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] != '\0')
			rc = load_module(line, err);
	}
	(void)fclose(list);
	return rc;
}

static bool has_virtio_device(unsigned wanted)
{
	DIR *dir = opendir("/sys/bus/virtio/devices");
	const struct dirent *entry;
	bool found = false;

	while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
		char path[320], text[16];
		unsigned id = 0;
		(void)snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/device", entry->d_name);
		found = read_text(path, text, sizeof(text)) && sscanf(text, "%x", &id) == 1 && id == wanted;
	}
	if (dir != NULL)
		(void)closedir(dir);
	return found;
}

/* --- disks --- */

/* By the name that the host gave the disk, which no driver has to promise an order of. */
static bool find_disk(const char *serial, char *path, size_t size)
{
	DIR *dir = opendir("/sys/block");
	const struct dirent *entry;
	bool found = false;

	while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
		char name_path[300], name[32];
		if (strncmp(entry->d_name, "vd", 2) != 0)
			continue;
		(void)snprintf(name_path, sizeof(name_path), "/sys/block/%s/serial", entry->d_name);
		found = read_text(name_path, name, sizeof(name)) && strcmp(name, serial) == 0;
		if (found)
			(void)snprintf(path, size, "/dev/%s", entry->d_name);
	}
	if (dir != NULL)
		(void)closedir(dir);
	return found;
}

static bool verity_enforced;

/* Puts the checked device in the disk's place, where the host asks for it. A kernel without the drivers goes on
 * without, and the acknowledgement says so; an image that cannot be mapped does not boot. */
static int map_verity(char *disk, size_t size, struct err *err)
{
	char line[COMMAND_LINE_MAX];
	struct verity_wish wish;
	struct err missing = {0};

	if (!read_text("/proc/cmdline", line, sizeof(line)) || !verity_wanted(line, &wish))
		return 0;
	if (load_modules("/verity.list", &missing) < 0)
		return 0;
	int rc = verity_map(disk, &wish, disk, size, err);
	verity_enforced = rc == 0;
	return rc < 0 ? rc : 0;
}

static int mount_lower(struct err *err)
{
	char disk[300];

	for (int i = 0; !find_disk(ROOT_SERIAL, disk, sizeof(disk)); i++) {
		if (i == DEVICE_TRIES)
			return err_set(err, ERR_UNAVAILABLE, "no disk called " ROOT_SERIAL);
		pause_ms();
	}
	int rc = map_verity(disk, sizeof(disk), err);
	if (rc < 0)
		return rc;
	return do_mount(&(struct mount_point){disk, "/lower", "squashfs", MS_RDONLY, NULL}, err);
}

static bool scratch_on_disk;

/* Writes go to the scratch disk, or, where there is none, to memory. */
static int mount_scratch(struct err *err)
{
	char disk[300];
	bool on_disk = find_disk(SCRATCH_SERIAL, disk, sizeof(disk));
	const struct mount_point m =
		on_disk ? (struct mount_point){disk, "/scratch", "ext4", MS_NOATIME, "noinit_itable"}
			: (struct mount_point){"tmpfs", "/scratch", "tmpfs", 0, "mode=755"};

	scratch_on_disk = on_disk;
	return do_mount(&m, err);
}

/* --- the root of the job --- */

static const struct mount_point root_mounts[] = {
	{"proc", "/root/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"sysfs", "/root/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"devtmpfs", "/root/dev", "devtmpfs", MS_NOSUID, "mode=755"},
	{"devpts", "/root/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666"},
	{"tmpfs", "/root/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
	{"tmpfs", "/root/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"},
};

/* What devtmpfs lacks, and shells and scripts count on. */
static int make_dev_links(struct err *err)
{
	static const char *const links[][2] = {
		{"/proc/self/fd", "/root/dev/fd"},
		{"/proc/self/fd/0", "/root/dev/stdin"},
		{"/proc/self/fd/1", "/root/dev/stdout"},
		{"/proc/self/fd/2", "/root/dev/stderr"},
	};

	for (size_t i = 0; i < ARRAY_LEN(links); i++) {
		if (symlink(links[i][0], links[i][1]) != 0 && errno != EEXIST)
			return err_sys(err, "make %s", links[i][1]);
	}
	return 0;
}

static int mount_root(struct err *err)
{
	const struct mount_point overlay = {"overlay", "/root", "overlay", 0,
					    "lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work"};

	int rc = make_dir("/scratch/upper", err);
	if (rc == 0)
		rc = make_dir("/scratch/work", err);
	if (rc == 0)
		rc = do_mount(&overlay, err);
	if (rc == 0)
		rc = mount_all(root_mounts, ARRAY_LEN(root_mounts), err);
	return rc == 0 ? make_dev_links(err) : rc;
}

/* The job's root becomes ours too; the first mounts stay beneath, out of sight. */
static int enter_root(struct err *err)
{
	if (chdir("/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
		return err_sys(err, "enter the job's root");
	int rc = make_dir("/etc", err);
	if (rc == 0)
		rc = make_dir("/tmp", err);
	if (rc == 0 && chmod("/tmp", 01777) != 0)
		rc = err_sys(err, "open /tmp to all");
	return rc;
}

/* What the hello needs is open before it, and what it writes lies in memory, with links and a mount in its place: to an
 * emulated CPU each path in the kernel that it goes for the first time costs more than all the rest. Until the hello
 * these files say nothing. */
#define HOSTS "/run/nimbus-hosts"
#define MACHINE_ID "/run/nimbus-machine-id"
#define BOOT_ID "/run/nimbus-boot-id"

static struct {
	int urandom, hosts, machine_id, boot_id;
	size_t hosts_len;
} names = {-1, -1, -1, -1, 0};

static bool put_link(const char *to, const char *at)
{
	return (unlink(at) == 0 || errno == ENOENT) && symlink(to, at) == 0;
}

static int put_file(const char *path)
{
	return open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

static bool put_names(void)
{
	names.urandom = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	names.hosts = put_file(HOSTS);
	names.machine_id = put_file(MACHINE_ID);
	names.boot_id = put_file(BOOT_ID);
	return names.urandom >= 0 && names.hosts >= 0 && names.machine_id >= 0 && names.boot_id >= 0 &&
	       put_link(HOSTS, "/etc/hosts") && put_link(MACHINE_ID, "/etc/machine-id") &&
	       mount(BOOT_ID, "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL) == 0;
}

/* The scratch disk is part of what a template is made of: each clone begins with a copy of it, as it is now. */
static int build_root(struct err *err)
{
	int rc = mount_scratch(err);

	if (rc == 0)
		rc = mount_root(err);
	if (rc == 0)
		rc = enter_root(err);
	if (rc == 0 && !put_names())
		rc = err_sys(err, "write the machine's names");
	network_loopback_up();
	/* What is not on the disk would be lost to a clone that has to boot after all (shim/job_vm.c). */
	sync();
	return rc;
}

/* --- identity --- */

/* The bits that the bytes count for. */
static bool add_entropy(const struct guest_hello *hello, int bits)
{
	struct {
		struct rand_pool_info head;
		unsigned char bytes[GUEST_ENTROPY_SIZE];
	} pool = {.head = {.entropy_count = bits, .buf_size = GUEST_ENTROPY_SIZE}};

	memcpy(pool.bytes, hello->entropy, sizeof(pool.bytes));
	return ioctl(names.urandom, RNDADDENTROPY, &pool) == 0 && ioctl(names.urandom, RNDRESEEDCRNG) == 0;
}

bool system_set_clock(int64_t wall_ns)
{
	const struct timespec now = {.tv_sec = wall_ns / NS_PER_S, .tv_nsec = wall_ns % NS_PER_S};

	return clock_settime(CLOCK_REALTIME, &now) == 0;
}

/* From its start; ids have one length. */
static bool write_name(int fd, const char *text)
{
	size_t len = strlen(text);

	return pwrite(fd, text, len, 0) == (ssize_t)len;
}

static bool set_hostname(const struct guest_hello *hello)
{
	char hosts[200];
	size_t len = (size_t)snprintf(hosts, sizeof(hosts), "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n",
				      hello->hostname);

	if (len < names.hosts_len && ftruncate(names.hosts, 0) != 0)
		return false;
	names.hosts_len = len;
	return write_name(names.hosts, hosts) && sethostname(hello->hostname, strlen(hello->hostname)) == 0;
}

static void hex(const unsigned char id[static GUEST_ID_SIZE], char text[static 2 * GUEST_ID_SIZE + 1])
{
	for (size_t i = 0; i < GUEST_ID_SIZE; i++)
		(void)snprintf(text + 2 * i, 3, "%02x", id[i]);
}

static bool set_machine_id(const struct guest_hello *hello)
{
	char id[2 * GUEST_ID_SIZE + 1], text[sizeof(id) + 1];

	hex(hello->machine_id, id);
	(void)snprintf(text, sizeof(text), "%s\n", id);
	return write_name(names.machine_id, text);
}

/* The kernel's own is the same in every clone of a template: our file lies over it. */
static bool set_boot_id(const struct guest_hello *hello)
{
	char id[2 * GUEST_ID_SIZE + 1], text[sizeof(id) + 5];

	hex(hello->boot_id, id);
	(void)snprintf(text, sizeof(text), "%.8s-%.4s-%.4s-%.4s-%.12s\n", id, id + 8, id + 12, id + 16, id + 20);
	return write_name(names.boot_id, text);
}

static uint32_t introduce(const struct guest_hello *hello, int entropy_bits)
{
	uint32_t done = (scratch_on_disk ? GUEST_DONE_SCRATCH : 0) | (verity_enforced ? GUEST_DONE_VERITY : 0);

	/* The clock soon: the host's words grow old. */
	if (add_entropy(hello, entropy_bits))
		done |= GUEST_DONE_ENTROPY;
	if (system_set_clock(hello->wall_ns))
		done |= GUEST_DONE_CLOCK;
	if (set_hostname(hello))
		done |= GUEST_DONE_HOSTNAME;
	if (set_machine_id(hello))
		done |= GUEST_DONE_MACHINE_ID;
	if (set_boot_id(hello))
		done |= GUEST_DONE_BOOT_ID;
	if (hello->network.address != 0 && network_up(&hello->network)) {
		names_point_here();
		done |= GUEST_DONE_NETWORK;
	}
	return done;
}

uint32_t system_hello(const struct guest_hello *hello)
{
	return introduce(hello, 8 * GUEST_ENTROPY_SIZE);
}

/* --- rehearsal --- */

#define REHEARSAL_CGROUP "/cgroup/rehearsal"
#define LAST_PID "/proc/sys/kernel/ns_last_pid"

static struct {
	int cgroup_fd;
	char last_pid[16]; /* "" where the kernel does not say */
} rehearsal;

/* The names say nothing again. */
static void take_names_back(void)
{
	(void)!ftruncate(names.hosts, 0);
	(void)!ftruncate(names.machine_id, 0);
	(void)!ftruncate(names.boot_id, 0);
	names.hosts_len = 0;
}

/* A hello that changes nothing: the time and the hostname as they are, bytes that count for no entropy. */
static void hello_nobody(void)
{
	struct guest_hello hello = {0};
	char hostname[GUEST_NAME_MAX + 1] = "";
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)gethostname(hostname, sizeof(hostname) - 1);
	hello.wall_ns = now.tv_sec * NS_PER_S + now.tv_nsec;
	hello.hostname = hostname;
	(void)introduce(&hello, 0);
	take_names_back();
}

int system_rehearse(void)
{
	hello_nobody();
	if (!read_text(LAST_PID, rehearsal.last_pid, sizeof(rehearsal.last_pid)))
		rehearsal.last_pid[0] = '\0';
	(void)mkdir(REHEARSAL_CGROUP, 0755);
	rehearsal.cgroup_fd = open(REHEARSAL_CGROUP, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return rehearsal.cgroup_fd;
}

void system_rehearsed(void)
{
	if (rehearsal.cgroup_fd >= 0)
		(void)close(rehearsal.cgroup_fd);
	(void)rmdir(REHEARSAL_CGROUP);
	if (rehearsal.last_pid[0] != '\0')
		(void)write_text(LAST_PID, 0, rehearsal.last_pid);
}

/* --- boot --- */

int system_cgroup(void)
{
	const struct mount_point m = {"cgroup2", "/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL};

	if (do_mount(&m, NULL) < 0)
		return -1;
	(void)write_text("/cgroup/cgroup.subtree_control", 0, "+cpu +memory +pids");
	(void)mkdir("/cgroup/job", 0755);
	return open("/cgroup/job", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Where /sys and /dev are the job's already: it has not begun. */
int system_window(void)
{
	char disk[300];

	return find_disk(GUEST_WINDOW_SERIAL, disk, sizeof(disk)) ? open(disk, O_RDWR | O_DIRECT | O_CLOEXEC) : -1;
}

int system_boot(struct err *err)
{
	static const struct mount_point first[] = {
		{"proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
		{"sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
		{"devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755"},
	};

	int rc = mount_all(first, ARRAY_LEN(first), err);
	/* There is no modprobe here that the kernel could call, and each try would cost it a process. */
	(void)write_text("/proc/sys/kernel/modprobe", 0, "\n");
	if (rc == 0)
		rc = load_modules("/modules.list", err);
	if (rc == 0 && has_virtio_device(VIRTIO_NETWORK))
		rc = load_modules("/network.list", err);
	if (rc == 0)
		rc = mount_lower(err);
	if (rc == 0)
		rc = build_root(err);
	return rc;
}

/* "/dev/vport0p1", by the name that the host gave the port. */
static bool find_port(char *path, size_t size)
{
	DIR *dir = opendir("/sys/class/virtio-ports");
	const struct dirent *entry;
	bool found = false;

	while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
		char name_path[320], name[32];
		(void)snprintf(name_path, sizeof(name_path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		found = read_text(name_path, name, sizeof(name)) && strcmp(name, PORT_NAME) == 0;
		if (found)
			(void)snprintf(path, size, "/dev/%s", entry->d_name);
	}
	if (dir != NULL)
		(void)closedir(dir);
	return found;
}

/* Until then the port reads as closed. */
static bool host_connected(int fd)
{
	struct pollfd port = {.fd = fd, .events = POLLIN};

	return poll(&port, 1, 0) >= 0 && (port.revents & POLLHUP) == 0;
}

int system_channel(int *ret_fd, struct err *err)
{
	char path[300];
	int fd = -1;

	for (int i = 0; i < PORT_TRIES; i++) {
		if (fd < 0 && find_port(path, sizeof(path)))
			fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0 && host_connected(fd)) {
			*ret_fd = fd;
			return 0;
		}
		pause_ms();
	}
	return err_set(err, ERR_UNAVAILABLE, "no port %s to the host", PORT_NAME);
}

/* Nothing is synced: no disk of a microVM outlives it. */
void system_power_off(void)
{
	(void)reboot(RB_POWER_OFF);
	/* A machine without power control; the VMM takes a reset as the end. */
	(void)reboot(RB_AUTOBOOT);
	_exit(1); /* the kernel's panic=-1 */
}
