#include "guest/verity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/str.h"

#define CONTROL "/dev/mapper/control"
#define KEY "nimbus.verity="

enum { BLOCK_SECTORS = 8, PARAMETERS_MAX = 512 };

/* One request of the device mapper, with the one target that a table of ours has. */
struct request {
	struct dm_ioctl head;
	struct dm_target_spec target;
	char parameters[PARAMETERS_MAX];
};

static bool parse(struct str value, struct verity_wish *ret)
{
	struct str rest = value;
	struct str root = str_cut(&rest, ',');
	int64_t blocks = 0;

	if (root.len != VERITY_HEX || rest.data == NULL ||
	    str_to_i64(rest, "blocks", 2, INT64_C(1) << 40, &blocks, NULL) < 0)
		return false;
	for (size_t i = 0; i < root.len; i++)
		if (strchr("0123456789abcdef", root.data[i]) == NULL)
			return false;
	memcpy(ret->root, root.data, VERITY_HEX);
	ret->root[VERITY_HEX] = '\0';
	ret->blocks = (uint64_t)blocks;
	return true;
}

bool verity_wanted(const char *command_line, struct verity_wish *ret)
{
	struct str rest = str_trim(str_c(command_line));

	while (rest.data != NULL) {
		struct str word = str_cut(&rest, ' ');
		if (!str_starts_with(word, STR(KEY)))
			continue;
		word.data += strlen(KEY);
		word.len -= strlen(KEY);
		return parse(word, ret);
	}
	return false;
}

static int ask(int control, unsigned long code, const char *what, struct request *r, uint32_t flags, struct err *err)
{
	r->head.version[0] = DM_VERSION_MAJOR;
	r->head.data_size = sizeof(*r);
	r->head.data_start = offsetof(struct request, target);
	r->head.flags = flags;
	(void)snprintf(r->head.name, sizeof(r->head.name), "root");
	if (ioctl(control, code, r) != 0)
		return err_sys(err, "dm-verity: %s", what);
	return 0;
}

/* Format 1, the tree on the same disk, one block behind the data, no salt. */
static void describe(struct request *r, dev_t disk, const struct verity_wish *wish)
{
	r->head.target_count = 1;
	r->target.length = wish->blocks * BLOCK_SECTORS;
	(void)snprintf(r->target.target_type, sizeof(r->target.target_type), "verity");
	(void)snprintf(r->parameters, sizeof(r->parameters), "1 %u:%u %u:%u 4096 4096 %llu %llu sha256 %s -",
		       major(disk), minor(disk), major(disk), minor(disk), (unsigned long long)wish->blocks,
		       (unsigned long long)wish->blocks + 1, wish->root);
}

int verity_map(const char *disk, const struct verity_wish *wish, char *path, size_t size, struct err *err)
{
	struct request create = {0}, load = {0}, resume = {0};
	struct stat st;
	int control = open(CONTROL, O_RDWR | O_CLOEXEC);

	if (control < 0)
		return VERITY_NO_DRIVER;
	if (stat(disk, &st) != 0) {
		(void)close(control);
		return err_sys(err, "look at %s", disk);
	}
	describe(&load, st.st_rdev, wish);
	int rc = ask(control, DM_DEV_CREATE, "make the device", &create, 0, err);
	if (rc == 0)
		rc = ask(control, DM_TABLE_LOAD, "load the table", &load, DM_READONLY_FLAG, err);
	if (rc == 0)
		rc = ask(control, DM_DEV_SUSPEND, "start the device", &resume, 0, err);
	(void)close(control);
	if (rc == 0)
		(void)snprintf(path, size, "/dev/dm-%u", minor((dev_t)resume.head.dev));
	return rc;
}
