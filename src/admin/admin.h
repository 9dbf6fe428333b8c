/*
 * `nimbus admin`: keys, backups and what a restore needs. Works on a data directory and its databases, whether the
 * roles run or not; it speaks to none of them.
 */
#pragma once

#include "base/command.h"

extern const struct command_table admin_commands;
