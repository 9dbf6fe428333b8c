/*
 * The agent's templates (vm/template.h): which machines jobs ask for, which of them have a template that was found
 * genuine, and the one process that makes or checks one, in the background and never while a job is being started
 * (agent/template_maker.h; what is made and dropped is decided by model/template_plan.h). All of it is the loop's; what
 * blocks runs on the worker. A job never waits for any of this: without a template its VM boots.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/vm_folder.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/agent_api.h"

struct agent;
struct templates;

/* A template is not used any more: what was begun from it and is nobody's yet may go. */
typedef void (*templates_forgot_fn)(struct agent *a, const char *name);

/* Where there are to be none, the agent has NULL, which every function here takes. */
int templates_new(struct agent *a, templates_forgot_fn forgot, struct templates **ret, struct err *err) must_check;
/* A process that makes one is killed. The worker is done with all before this. */
void templates_free(struct templates *t);
AUTOPTR_DEFINE(templates)

/* The accelerator is known: what former agents made is looked at, and used when it was read through. */
void templates_begin(struct templates *t);
/* A job asks for a machine. True: there is a template to try. */
bool templates_ask(struct templates *t, const struct job_assignment *job, struct vm_template *ret);
/* It was made from something else than what is there now: it goes. */
void templates_stale(struct templates *t, const char *name);
/* It cannot be used, for a reason that somebody should know: it goes, and is made again. */
void templates_broken(struct templates *t, const char *name, const char *why);
