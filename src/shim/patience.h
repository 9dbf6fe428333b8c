/*
 * How long a VM's guest is waited for before the VM is given up.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* From the VM's start to its guest's answer, on a machine whose `cpus` have `load` to do; load below 0 or no CPU: not
 * known. */
int64_t patience_ns(bool clone, double load, long cpus);
/* On this machine, now. */
int64_t patience_now_ns(bool clone);
