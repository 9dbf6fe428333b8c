/*
 * As whom the roles run. Started as root, only `up` stays root: everything else becomes user `nimbus`, or NIMBUS_UID
 * where there is no such user, with group `kvm`. Started by anybody else, everything runs as that user.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/process.h"

struct service_user {
	bool change; /* from root; otherwise nothing below counts */
	uid_t uid;
	gid_t gid;
	gid_t kvm; /* (gid_t)-1: there is no such group */
};

void service_user_find(int64_t fallback_uid, struct service_user *ret);
void service_user_apply(const struct service_user *u, struct process_spec *spec);
/* Gives a file or folder that we made to the service user; never what a link leads to. */
int service_user_own(const struct service_user *u, const char *path, struct err *err) must_check;
/* Can that user get into the folder (the message names the first one in the way), but not change what is in it? */
int service_user_check_path(const struct service_user *u, const char *folder, struct err *err) must_check;
