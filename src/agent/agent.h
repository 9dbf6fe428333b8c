/*
 * The host agent: leases jobs, starts a shim with a microVM for each, renews, cancels, reports, and cleans up. One
 * thread and one event loop, on which nothing blocks: what has to (files, starting processes) is done by one worker
 * thread, SQL by the store's writer. Shims outlive their agent: the next one adopts them.
 */
#pragma once

#include "base/command.h"

/* `nimbus host-agent` */
extern const struct command host_agent_command;
/* `nimbus template-maker`, started by an agent only (agent/template_maker.h) */
extern const struct command template_maker_command;
