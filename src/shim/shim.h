/*
 * `nimbus shim`: the process that owns one VM. Started by the host agent and by nobody else, with descriptors instead
 * of arguments (proto/shim_msg.h). One thread, one loop.
 */
#pragma once

#include "base/command.h"

/* `nimbus shim`, hidden */
extern const struct command shim_command;
