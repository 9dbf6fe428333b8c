/*
 * The first words between host and guest. The blocking form is for probes, benchmarks and tests; a shim does the same
 * on its loop.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/guest_frame.h"

/* Everything in it fresh: epoch, entropy, identity, the time. The hostname is borrowed. */
void vm_hello(const char *hostname, struct guest_hello *ret);

/* The next frame of a non-blocking stream, waiting for bytes until deadline_ns (monotonic). ERR_TIMEOUT;
 * ERR_UNAVAILABLE when the VMM is gone. `unread` keeps what came behind the frame: all zeros at first. */
struct vm_reader {
	struct guest_decoder decoder;
	struct str unread;
	char bytes[GUEST_PAYLOAD_MAX];
};
int vm_read_frame(int fd, struct vm_reader *reader, int64_t deadline_ns, struct guest_frame *ret, struct err *err)
	must_check;

/* Waits for the guest to say that it listens (guest_beacon). */
int vm_wait_for_guest(int fd, int64_t deadline_ns, struct err *err) must_check;

/* Before a hello: the guest walks through what a job's start costs, and has taken it all back. */
int vm_rehearse(int fd, struct vm_reader *reader, int64_t deadline_ns, struct err *err) must_check;

/* Says hello and waits for the ack; refuses one that has not done all that a job needs. */
int vm_handshake(int fd, const struct guest_hello *hello, struct vm_reader *reader, int64_t deadline_ns,
		 struct guest_ack *ret, struct err *err) must_check;
