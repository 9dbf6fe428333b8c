/*
 * The commands that people and scripts use: each a row of a table, in a file of its own kind. They find server and
 * credential by themselves (cli/session), and end with the exit codes of `nimbus help exit-codes`.
 */
#pragma once

#include "base/command.h"

extern const struct command_table jobs_commands;
extern const struct command_table agents_commands;
extern const struct command_table report_commands;
extern const struct command_table tool_commands;
extern const struct command_table image_commands;
extern const struct command_table topic_commands;
/* Of other programs: each says what to use instead. */
extern const struct command_table absent_commands;
