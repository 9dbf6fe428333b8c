/*
 * The machine under the job: drivers, disks, mounts, identity. Everything here is meant for PID 1 of a microVM.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_frame.h"

/* Drivers, disks, the job's root: all that a template may hold, and nothing that makes a machine this one. */
int system_boot(struct err *err) must_check;
/* The port to the host, non-blocking, once the host has it open. */
int system_channel(int *ret_fd, struct err *err) must_check;
/* A folder, or -1 where the kernel has none. */
int system_cgroup(void);
/* The disk that archives go through (proto/guest_window.h), or -1. */
int system_window(void);

/* Entropy, clock, names: what makes a clone a machine of its own. Gives what is done. */
uint32_t system_hello(const struct guest_hello *hello);

/* Before a hello: walks through what one costs, and gives a cgroup (or -1) for what is to be run to the same end. */
int system_rehearse(void);
/* Nobody is left of it: takes back what it changed. */
void system_rehearsed(void);

/* The wall clock; gives whether it could be set. */
bool system_set_clock(int64_t wall_ns);

noreturn_fn void system_power_off(void);
