#include "admin/admin.h"
#include "agent/agent.h"
#include "base/command.h"
#include "base/str.h"
#include "cli/cli.h"
#include "control/control.h"
#include "logs/logs.h"
#include "shim/shim.h"
#include "up/up.h"

static const struct command *const services[] = {
	&up_command,	     &upgrade_command, &control_command,	&logs_command,
	&host_agent_command, &shim_command,    &template_maker_command,
};
static const struct command_table service_table = {"Services", services, ARRAY_LEN(services)};

static const struct command_table *const tables[] = {&jobs_commands, &agents_commands, &report_commands,
						     &service_table, &image_commands,  &admin_commands,
						     &tool_commands, &topic_commands,  &absent_commands};

/* nimbus-cli, a link to us, is what some call it; every other name is a file's. */
static const char *name_of(const char *argv0)
{
	static const char cli[] = "nimbus-cli";
	struct str path = str_c(argv0);

	return str_eq(path, str_c(cli)) || str_ends_with(path, STR("/nimbus-cli")) ? cli : "nimbus";
}

int main(int argc, char **argv)
{
	const struct command_program program = {
		.name = name_of(argc > 0 ? argv[0] : NULL),
		.summary = "Nimbus: self-hosted CI, every job in its own microVM.",
		.tables = tables,
		.table_count = ARRAY_LEN(tables),
	};

	return command_main(&program, argc, argv);
}
