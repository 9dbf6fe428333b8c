#include "admin/admin.h"

#include "admin/commands.h"

static const struct command *const commands[] = {
	&backup_command,    &verify_command,	  &restore_command,	&void_leases_command,
	&keys_list_command, &keys_rotate_command, &keys_retire_command,
};
const struct command_table admin_commands = {"Administration", commands, ARRAY_LEN(commands)};
