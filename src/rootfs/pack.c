#include "rootfs/pack.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "rootfs/archive.h"
#include "rootfs/tool.h"

enum { ARGS_MAX = 32 };

static const int64_t pack_timeout_ns = 7200 * NS_PER_S;

static int feed(void *ctx, int fd, struct err *err)
{
	int rc = archive_pack(ctx, fd, err);

	return rc == ARCHIVE_PACK_GONE ? TOOL_GONE : rc;
}

/* Of an archive's root it takes its own user, whatever -root-uid says (4.5.1): so it runs as the one that counts. */
static size_t become(const struct stage *s, char map_user[static 32], char map_group[static 32], const char **argv)
{
	size_t count = 0;

	if (s->root_uid == geteuid() && s->root_gid == getegid())
		return 0;
	(void)snprintf(map_user, 32, "--map-user=%u", s->root_uid);
	(void)snprintf(map_group, 32, "--map-group=%u", s->root_gid);
	argv[count++] = "unshare";
	argv[count++] = "--user";
	argv[count++] = map_user;
	argv[count++] = map_group;
	return count;
}

/*
 * It reads a tar, since that has the owners and attributes that the stage keeps beside the files: nobody needs to be
 * root. SOURCE_DATE_EPOCH is not in its environment: beside the time options it would refuse to run.
 */
static int make_squashfs(struct stage *s, const char *compression, const char *out, struct err *err)
{
	char mode[16], map_user[32], map_group[32];
	const char *const words[] = {"mksquashfs",
				     "-",
				     out,
				     "-tar",
				     "-exports", /* overlayfs asks for file handles; with -tar not the default */
				     "-noappend",
				     "-xattrs",
				     "-mkfs-time",
				     "0",
				     "-all-time",
				     "0",
				     "-root-mode",
				     mode,
				     "-comp",
				     compression,
				     "-quiet",
				     "-no-progress",
				     strcmp(compression, "lz4") == 0 ? "-Xhc" : NULL};
	const char *argv[ARGS_MAX] = {NULL};

	(void)snprintf(mode, sizeof(mode), "%o", (unsigned)s->root_mode);
	size_t count = become(s, map_user, map_group, argv);
	memcpy(argv + count, words, sizeof(words));
	int rc = tool_run(&(struct tool_call){.argv = argv,
					      .package = count > 0 ? "util-linux squashfs-tools" : "squashfs-tools",
					      .timeout_ns = pack_timeout_ns,
					      .feed = feed,
					      .feed_ctx = s},
			  NULL, err);
	return rc < 0 && count > 0 ? err_wrap(err, "pack as user %u, which is not you (needs user namespaces, or root)",
					      s->root_uid)
				   : rc;
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

int pack_image(struct stage *s, const char *compression, const char *out, struct packed *ret, struct err *err)
{
	struct packed packed = {0};

	int rc = make_squashfs(s, compression, out, err);
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
