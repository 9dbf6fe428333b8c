/*
 * A listening TCP socket, and who holds the port when it cannot be had.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* `address` is numeric; port 0 gives a free one, *ret_port says which. Non-blocking. ERR_CONFLICT: the port is in use,
 * by the process that the message names where this user may see it. */
int listen_tcp(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port, struct err *err) must_check;
