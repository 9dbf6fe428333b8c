/*
 * A job's shim: its process, the guard over it, what it is told and what it says, which comes as events->shim_says(),
 * shim_silent() and shim_gone().
 */
#pragma once

#include "agent/job/record.h"
#include "net/loop.h"
#include "proto/shim_msg.h"

/* The one in j->prepared. */
int job_shim_take(struct agent_job *j, struct err *err) must_check;
/* One that a former agent started, by its socket, which is taken. */
int job_shim_adopt(struct agent_job *j, int socket, struct err *err) must_check;
/* Its pid is kept as a pidfd, so that it can be killed and its end be seen; it is not our child. */
void job_shim_hold(struct agent_job *j, pid_t pid);
/* No more talk with it: without an agent, or with its work done, it goes by itself; where it does not, it is killed. */
void job_shim_drop(struct agent_job *j);
void job_shim_kill(struct agent_job *j);
/* Instead of the guard before. */
void job_shim_guard(struct agent_job *j, loop_fn fn, int64_t wait_ns);
/* It was told to go: soon it is killed. */
void job_shim_expect_end(struct agent_job *j);

/* A shim that cannot be told is killed, and the link's end says so. */
void job_shim_send(struct agent_job *j, enum shim_msg_type type);
void job_shim_cancel(struct agent_job *j);
/* The deadline has moved: the shim is to know. */
void job_shim_extend(struct agent_job *j);
/* To one that was told by another agent where the pipeline is: where it is now. The deadline stays its own. */
void job_shim_show_pipeline(struct agent_job *j, int64_t deadline_ns);
int64_t job_timeout(const struct agent_job *j);
/* The order, with what the worker has prepared. */
int job_shim_start(struct agent_job *j, struct err *err) must_check;
/* A command beside the job, for a client that waits for it. */
void job_shim_session(struct agent_job *j, const struct agent_command *c);
/* An object of strings, or NULL. */
void job_shim_go(struct agent_job *j, const struct js *secret_env);
