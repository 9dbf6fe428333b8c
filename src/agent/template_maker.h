/*
 * The process that makes a template, or reads one through to see whether it is still what was made: straight-line code
 * that blocks, at the lowest priority, beside the agent's jobs and killed with the agent. Its exit status is the
 * answer.
 */
#pragma once

#include <stdint.h>

#include "agent/vm_folder.h"
#include "base/process.h"
#include "vm/template.h"

/* Blocks for as long as opening a few files takes; for a thread that lives as long as the agent. */
int template_maker_start(const struct vm_host *host, const struct template_order *order, struct process *ret,
			 struct err *err) must_check;
int template_checker_start(const struct vm_host *host, const char *name, struct process *ret, struct err *err)
	must_check;
