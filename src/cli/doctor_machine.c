/*
 * What jobs need of this machine.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/doctor.h"
#include "vm/assets.h"
#include "vm/driver.h"
#include "vm/kvm_probe.h"
#include "vm/passt.h"

enum { FILES_WANTED = 65536, KERNEL_MAJOR = 5, KERNEL_MINOR = 10, HOST_MEMORY_MIB = 1024 };
#define CGROUP2_MAGIC 0x63677270

/* --- processors --- */

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = text; at != NULL && (at = strstr(at, word)) != NULL; at += len) {
		bool begins = at == text || strchr(" \t\n", at[-1]) != NULL;
		if (begins && (at[len] == '\0' || strchr(" \t\n", at[len]) != NULL))
			return true;
	}
	return false;
}

static enum verdict look_processor(struct doctor *d, struct finding *f)
{
	const char *info = read_small(d, "/proc/cpuinfo");
	const char *nested = read_small(d, "/sys/module/kvm_intel/parameters/nested");
	long count = sysconf(_SC_NPROCESSORS_ONLN);

	if (nested == NULL)
		nested = read_small(d, "/sys/module/kvm_amd/parameters/nested");
	const char *kind = has_word(info, "vmx") ? "VT-x" : has_word(info, "svm") ? "AMD-V" : NULL;
	if (kind == NULL) {
		f->fix = "switch virtualisation on in the firmware; in a VM, let its host pass it on (nested)";
		say(f, "%ld CPUs without VT-x and AMD-V: jobs are emulated, which is slow", count);
		return CHECK_WARN;
	}
	say(f, "%ld CPUs with %s%s%s", count, kind, nested != NULL ? ", nested: " : "", nested != NULL ? nested : "");
	return CHECK_OK;
}

static enum verdict look_mitigations(struct doctor *d, struct finding *f)
{
	static const char *const names[] = {
		"meltdown", "spectre_v1",      "spectre_v2",	  "l1tf",     "mds",
		"srbds",    "tsx_async_abort", "mmio_stale_data", "retbleed", "gather_data_sampling"};
	const char *threads = read_small(d, "/sys/devices/system/cpu/smt/active");
	size_t open = 0;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		autofree char *path = xasprintf("/sys/devices/system/cpu/vulnerabilities/%s", names[i]);
		const char *state = read_small(d, path);
		if (state != NULL && strncmp(state, "Vulnerable", strlen("Vulnerable")) == 0)
			say(f, "%s%s",
			    open++ > 0 ? ", " : "jobs of strangers can read each other's memory: ", names[i]);
	}
	if (open > 0) {
		f->fix = "boot without mitigations=off, and with newer microcode; or run only jobs that may see each "
			 "other";
		return CHECK_WARN;
	}
	say(f, "known CPU flaws are mitigated%s",
	    threads != NULL && strcmp(threads, "1") == 0 ? "; two jobs may share a core (SMT)" : "");
	return CHECK_OK;
}

/* --- memory --- */

static enum verdict look_memory(struct doctor *d, struct finding *f)
{
	struct sysinfo info = {0};

	if (sysinfo(&info) != 0)
		return CHECK_OK;
	uint64_t mib = (uint64_t)info.totalram * info.mem_unit >> 20;
	int64_t offered = d->agent.memory_mb;
	say(f, "%" PRIu64 " MiB", mib);
	if (offered > 0)
		say(f, ", of which %" PRId64 " MiB are offered to jobs", offered);
	if (info.totalswap > 0)
		say(f, "; swap is on, so what jobs hold in memory may reach the disk");
	if (offered > (int64_t)mib) {
		f->fix = "set NIMBUS_AGENT_MEMORY_MB to less than there is, with 1 GiB for the host";
		return CHECK_FAIL;
	}
	f->fix = mib < HOST_MEMORY_MIB
			 ? "give this machine more memory: a job gets 256 MiB when it asks for nothing else"
			 : "set NIMBUS_AGENT_MEMORY_MB so that 1 GiB stays for the host";
	return mib < HOST_MEMORY_MIB || offered + HOST_MEMORY_MIB / 2 > (int64_t)mib ? CHECK_WARN : CHECK_OK;
}

static enum verdict look_hugepages(struct doctor *d, struct finding *f)
{
	const char *transparent = read_small(d, "/sys/kernel/mm/transparent_hugepage/enabled");

	say(f, "transparent: %s (nothing has to be set)", transparent != NULL ? transparent : "not in this kernel");
	return CHECK_OK;
}

static enum verdict look_entropy(struct doctor *d, struct finding *f)
{
	const char *bits = read_small(d, "/proc/sys/kernel/random/entropy_avail");

	say(f, "%s bits", bits != NULL ? bits : "unknown");
	if (bits != NULL && strlen(bits) < 3) { /* under 100 */
		f->fix = "give this machine a source of randomness: virtio-rng, or rngd";
		return CHECK_WARN;
	}
	return CHECK_OK;
}

/* --- the kernel --- */

static enum verdict look_kernel(struct doctor *d, struct finding *f)
{
	struct utsname name;
	int64_t major = 0;
	int64_t minor = 0;

	(void)d;
	if (uname(&name) != 0)
		return CHECK_OK;
	say(f, "%s %s", name.sysname, name.release);
	struct str rest = str_c(name.release);
	struct str first = str_cut(&rest, '.');
	if (str_to_i64(first, "major", 0, INT32_MAX, &major, NULL) == 0 &&
	    str_to_i64(str_cut(&rest, '.'), "minor", 0, INT32_MAX, &minor, NULL) == 0 &&
	    (major < KERNEL_MAJOR || (major == KERNEL_MAJOR && minor < KERNEL_MINOR))) {
		f->fix = "use a kernel of 5.10 or later";
		return CHECK_WARN;
	}
	return CHECK_OK;
}

static enum verdict look_cgroups(struct doctor *d, struct finding *f)
{
	const char *membership = read_small(d, "/proc/self/cgroup");
	struct statfs fs;

	f->fix = "boot with systemd.unified_cgroup_hierarchy=1; in a unit, Delegate=yes";
	if (statfs("/sys/fs/cgroup", &fs) != 0 || fs.f_type != CGROUP2_MAGIC) {
		say(f, "no cgroup v2 at /sys/fs/cgroup: VMs are limited by their own size alone");
		return CHECK_WARN;
	}
	bool unified = membership != NULL && strncmp(membership, "0::", 3) == 0;
	autofree char *path = xasprintf("/sys/fs/cgroup%s/cgroup.controllers", unified ? membership + 3 : "");
	const char *controllers = read_small(d, path);
	say(f, "v2; here: %s", controllers != NULL && controllers[0] != '\0' ? controllers : "no controllers");
	return CHECK_OK;
}

/* Nothing of a job needs one of these today but the last: jobs' network is passt's, which needs no device. */
static enum verdict look_devices(struct doctor *d, struct finding *f)
{
	static const struct {
		const char *path;
		const char *name;
	} devices[] = {{"/dev/vhost-vsock", "vhost_vsock"}, {"/dev/net/tun", "tun"}, {"/dev/loop-control", "loop"}};
	const char *systems = read_small(d, "/proc/filesystems");
	size_t missing = 0;

	for (size_t i = 0; i < ARRAY_LEN(devices); i++) {
		if (access(devices[i].path, F_OK) != 0)
			say(f, "%s%s", missing++ > 0 ? ", " : "not there: ", devices[i].name);
	}
	if (!has_word(systems, "overlay"))
		say(f, "%soverlay", missing++ > 0 ? ", " : "not there: ");
	say(f, "%s", missing > 0 ? "; no job needs them today" : "vhost_vsock, tun, loop, overlay");
	return CHECK_OK;
}

static enum verdict look_confinement(struct doctor *d, struct finding *f)
{
	const char *selinux = read_small(d, "/sys/fs/selinux/enforce");
	const char *apparmor = read_small(d, "/sys/module/apparmor/parameters/enabled");

	if (selinux != NULL)
		say(f, "SELinux %s", strcmp(selinux, "1") == 0 ? "enforces" : "is permissive");
	else if (apparmor != NULL && strcmp(apparmor, "Y") == 0)
		say(f, "AppArmor is on");
	else
		say(f, "no SELinux, no AppArmor");
	return CHECK_OK;
}

static enum verdict look_files(struct doctor *d, struct finding *f)
{
	struct rlimit limit;

	(void)d;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return CHECK_OK;
	say(f, "%llu open files", (unsigned long long)limit.rlim_max);
	f->fix = "ulimit -n 65536, or LimitNOFILE=65536 in the unit";
	return limit.rlim_max < FILES_WANTED ? CHECK_WARN : CHECK_OK;
}

static enum verdict look_privileges(struct doctor *d, struct finding *f)
{
	const char *status = read_small(d, "/proc/self/status");
	const char *caps = status != NULL ? strstr(status, "CapEff:\t") : NULL;

	say(f, "uid %u, capabilities %.16s; a job is kept from this host by its VM alone, there is no jail yet",
	    (unsigned)geteuid(), caps != NULL ? caps + strlen("CapEff:\t") : "unknown");
	return CHECK_OK;
}

/* --- virtual machines --- */

static enum verdict look_qemu(struct doctor *d, struct finding *f)
{
	autofree char *path = NULL;
	struct err err = {0};

	f->fix = "apt-get install qemu-system-x86, or set NIMBUS_QEMU_BIN";
	if (vm_find_program(d->agent.qemu_bin, &path, &err) < 0) {
		say(f, "%s", err.msg);
		return CHECK_FAIL;
	}
	say(f, "%s", path);
	return CHECK_OK;
}

static enum verdict look_network(struct doctor *d, struct finding *f)
{
	autofree char *path = NULL;
	struct err err = {0};

	(void)d;
	f->fix = "apt-get install passt";
	if (passt_find(&path, &err) < 0) {
		say(f, "%s; other jobs need none", err.msg);
		return CHECK_WARN;
	}
	f->fix = "give this host a default route for IPv4; passt's own words are above";
	if (passt_probe(&err) < 0) {
		say(f, "%s: jobs with network 'open' fail here, other jobs need none", err.msg);
		return CHECK_WARN;
	}
	say(f,
	    "%s answers; a job with network 'open' reaches what this host reaches by IPv4, private networks too, but "
	    "not "
	    "its loopback, link-local addresses or a metadata server: no policy limits the rest yet",
	    path);
	return CHECK_OK;
}

static const char *kvm_fix(void)
{
	if (access("/dev/kvm", F_OK) != 0)
		return "switch virtualisation on in the firmware, and load kvm_intel or kvm_amd";
	if (access("/dev/kvm", R_OK | W_OK) != 0)
		return "let the service user open /dev/kvm: usermod -aG kvm nimbus";
	return "none here: the machine that this one runs on does not pass virtualisation on in working order";
}

static int probe(struct doctor *d, struct kvm_verdict *ret, struct err *err)
{
	char temp[] = "/tmp/nimbus-doctor-XXXXXX";
	autoclose folder = -1;
	autoclose kernel = -1;
	autoclose initrd = -1;
	autoclose root = -1;
	autoclose cache = -1;

	int rc = dir_open(d->assets_dir, &folder, err);
	if (rc == 0)
		rc = assets_open_kernel(folder, &kernel, err);
	if (rc == 0)
		rc = assets_open_initrd(folder, &initrd, err);
	if (rc == 0)
		rc = assets_open_rootfs(folder, STR("demo"), &root, err);
	if (rc == 0 && mkdtemp(temp) == NULL)
		rc = err_sys(err, "make %s", temp);
	if (rc < 0)
		return rc;
	rc = dir_open(temp, &cache, err);
	if (rc == 0)
		rc = kvm_probe(
			&(struct kvm_probe_opts){
				.kernel_fd = kernel,
				.initrd_fd = initrd,
				.root_fd = root,
				.cache_fd = cache,
				.program = d->agent.qemu_bin,
			},
			ret, err);
	(void)!dir_remove(AT_FDCWD, temp, NULL);
	return rc;
}

/* What the agent has found, or a guest that is really started. */
static enum verdict look_kvm(struct doctor *d, struct finding *f)
{
	autofree char *agent = xasprintf("%s/agent", d->session->role.data_dir);
	autoclose cache = open(agent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct kvm_verdict verdict = {0};
	struct err err = {0};

	if (strcmp(d->agent.accel, "tcg") == 0) {
		say(f, "not asked for: jobs are emulated, as NIMBUS_ACCEL=tcg says");
		return CHECK_OK;
	}
	int rc = cache >= 0 ? kvm_probe_cached(cache, &verdict, &err) : KVM_UNKNOWN;
	if (rc == KVM_UNKNOWN)
		rc = probe(d, &verdict, &err);
	f->fix = rc < 0 ? "see above: without kernel and images it cannot be tried" : kvm_fix();
	say(f, "%s", rc < 0 ? err.msg : verdict.sentence);
	return rc == 0 && verdict.usable ? CHECK_OK : CHECK_WARN;
}

static const struct doctor_check checks[] = {
	{"processor", look_processor},	   {"mitigations", look_mitigations},
	{"memory", look_memory},	   {"hugepages", look_hugepages},
	{"entropy", look_entropy},	   {"kernel", look_kernel},
	{"cgroups", look_cgroups},	   {"devices", look_devices},
	{"confinement", look_confinement}, {"open files", look_files},
	{"privileges", look_privileges},   {"qemu", look_qemu},
	{"network of jobs", look_network}, {"kvm", look_kvm},
};
const struct doctor_table doctor_machine = {checks, ARRAY_LEN(checks)};
