/*
 * The rows, for the table in admin.c.
 */
#pragma once

#include "base/command.h"

extern const struct command keys_list_command;	 /* keys.c */
extern const struct command keys_rotate_command; /* keys.c */
extern const struct command keys_retire_command; /* keys.c */
extern const struct command backup_command;	 /* backup.c */
extern const struct command verify_command;	 /* restore.c */
extern const struct command restore_command;	 /* restore.c */
extern const struct command void_leases_command; /* void_leases.c */
