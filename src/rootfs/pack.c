#include "rootfs/pack.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "rootfs/tool.h"

enum { ARGS_MAX = 32 };

static const int64_t pack_timeout_ns = 7200 * NS_PER_S;

/* SOURCE_DATE_EPOCH is not in its environment: beside the time options it would refuse to run. */
static int make_squashfs(const struct stage *s, const char *compression, const char *list, const char *out,
			 struct err *err)
{
	char mode[16], uid[16], gid[16];
	const char *argv[ARGS_MAX] = {
		"mksquashfs", s->path, out,	     "-noappend", "-no-xattrs", "-mkfs-time", "0",
		"-all-time",  "0",     "-root-mode", mode,	  "-root-uid",	uid,	      "-root-gid",
		gid,	      "-pf",   list,	     "-comp",	  compression,	"-quiet",     "-no-progress",
	};
	size_t count = 0;

	(void)snprintf(mode, sizeof(mode), "%o", (unsigned)s->root_mode);
	(void)snprintf(uid, sizeof(uid), "%u", s->root_uid);
	(void)snprintf(gid, sizeof(gid), "%u", s->root_gid);
	while (argv[count] != NULL)
		count++;
	if (strcmp(compression, "lz4") == 0)
		argv[count++] = "-Xhc";
	return tool_run(&(struct tool_call){.argv = argv, .package = "squashfs-tools", .timeout_ns = pack_timeout_ns},
			NULL, err);
}

static int finish(const char *out, struct packed *ret, struct err *err)
{
	autovar(buf) digest = {0};
	autoclose fd = open(out, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return err_sys(err, "open the image");
	int rc = verity_append(fd, &ret->verity, err);
	if (rc == 0 && (fchmod(fd, 0444) != 0 || lseek(fd, 0, SEEK_SET) != 0 || fsync(fd) != 0))
		rc = err_sys(err, "finish the image");
	if (rc == 0)
		rc = file_copy_fd(fd, -1, &digest, &ret->size, err);
	if (rc == 0)
		memcpy(ret->sha256, digest.data, sizeof(ret->sha256));
	return rc;
}

int pack_image(struct stage *s, const char *compression, const char *work, const char *out, struct packed *ret,
	       struct err *err)
{
	autovar(buf) owners = {0};
	autofree char *list = xasprintf("%s/owners", work);
	struct packed packed = {0};

	int rc = stage_describe(s, &owners, err);
	if (rc == 0)
		rc = file_write_atomic(AT_FDCWD, list, buf_str(&owners), 0600, err);
	if (rc == 0)
		rc = make_squashfs(s, compression, list, out, err);
	if (rc == 0)
		rc = finish(out, &packed, err);
	if (rc == 0)
		*ret = packed;
	return rc;
}

char *pack_tool_version(const char *program, const char *flag)
{
	autovar(buf) said = {0};
	const char *const argv[] = {program, flag, NULL};
	struct err err = {0};

	(void)!tool_run(&(struct tool_call){.argv = argv, .package = program, .timeout_ns = 10 * NS_PER_S}, &said,
			&err);
	struct str rest = buf_str(&said);
	while (rest.data != NULL) {
		struct str line = str_cut(&rest, '\n');
		while (line.data != NULL) {
			struct str word = str_cut(&line, ' ');
			if (word.len > 0 && word.data[0] >= '0' && word.data[0] <= '9')
				return xmemdup0(word.data, word.len);
		}
	}
	return xstrdup("unknown");
}
