/*
 * QEMU's `microvm` machine as a driver: works with and without KVM. The channel is a virtio-serial port on a socket
 * pair; kernel and disks are passed as descriptors; QEMU's own seccomp filter is on.
 */
#pragma once

#include "vm/driver.h"

extern const struct vm_driver qemu_driver;
