/*
 * The network of the guest: the loopback device, which every job has, and the one other device, where the job was given
 * one. Libc only.
 */
#pragma once

#include <stdbool.h>

#include "proto/guest_frame.h"

void network_loopback_up(void);
/* Gives the device its hardware address and address, and the way out. Again with another is fine. */
bool network_up(const struct guest_network *n);
