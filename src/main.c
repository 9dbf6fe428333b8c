#include "agent/agent.h"
#include "base/command.h"
#include "cli/cli.h"
#include "control/control.h"
#include "logs/logs.h"
#include "shim/shim.h"
#include "up/up.h"

static const struct command *const services[] = {
	&up_command, &control_command, &logs_command, &host_agent_command, &shim_command,
};
static const struct command_table service_table = {"Services", services, ARRAY_LEN(services)};

static const struct command_table *const tables[] = {&jobs_commands, &service_table, &tool_commands};

int main(int argc, char **argv)
{
	static const struct command_program program = {
		.name = "nimbus",
		.summary = "Nimbus: self-hosted CI, every job in its own microVM.",
		.tables = tables,
		.table_count = ARRAY_LEN(tables),
	};

	return command_main(&program, argc, argv);
}
