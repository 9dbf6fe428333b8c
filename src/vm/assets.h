/*
 * What a VM is made of, as files: the kernel (`vmlinux`), the initial RAM disk (`initrd`) and rootfs images
 * (`NAME.squashfs`). A build or a package brings a *share* folder with a `manifest` (as of sha256sum); installing
 * copies what is new (or links, a large image) into an *assets* folder, one file per digest, with the names as links to
 * them. So a change never touches a file that a running VM has open, and installing again costs a few stat() calls.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum { ASSETS_NAME_MAX = 64 };

/* The share folder that belongs to this binary: `share` beside it, or /usr/share/nimbus. Free it. */
int assets_find_share(char **ret_path, struct err *err) must_check;

/* assets_dir is made where it is missing. */
int assets_install(const char *share_dir, const char *assets_dir, struct err *err) must_check;

/* a-z 0-9 . _ -, beginning with a letter or digit: what a rootfs may be called. */
bool assets_rootfs_name_valid(struct str name);

enum { ASSETS_DIGEST_SIZE = 65 };
bool assets_is_digest(struct str text);
/* Which file stands behind a name, in hex. ERR_NOT_FOUND says which rootfs there are; ERR_UNAVAILABLE: a file that was
 * laid there by hand, and has no digest to its name. */
int assets_rootfs_digest(int assets_fd, struct str name, char ret[static ASSETS_DIGEST_SIZE], struct err *err)
	must_check;
/* Makes `name` ("demo.squashfs") stand for the file of that digest, at once and for good; the old file stays for those
 * who know its digest. */
int assets_point(int assets_fd, const char *name, struct str digest, struct err *err) must_check;
/* The file itself, shared with everybody who uses it: what nobody has opened so may be removed. */
int assets_open_digest(int assets_fd, const char *digest, int *ret_fd, struct err *err) must_check;

/* All read-only. ERR_NOT_FOUND says which rootfs there are, ERR_UNAVAILABLE what is not installed. */
int assets_open_kernel(int assets_fd, int *ret_fd, struct err *err) must_check;
int assets_open_initrd(int assets_fd, int *ret_fd, struct err *err) must_check;
int assets_open_rootfs(int assets_fd, struct str name, int *ret_fd, struct err *err) must_check;
