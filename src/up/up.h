/*
 * `nimbus up`: the whole system of one machine in the foreground. Makes what a first start needs, runs control plane,
 * logging pipeline and host agent as children, starts again what falls, and stops them in order: first the agent, whose
 * jobs get the drain time while the servers still take their last words, then the servers. One thread, one loop.
 */
#pragma once

#include "base/command.h"

/* `nimbus up` */
extern const struct command up_command;
/* `nimbus upgrade` */
extern const struct command upgrade_command;
