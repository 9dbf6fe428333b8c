#include "vm/handshake.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"

void vm_hello(const char *hostname, struct guest_hello *ret)
{
	*ret = (struct guest_hello){
		.version = GUEST_PROTOCOL_VERSION,
		.epoch = crypto_random_u64(),
		.wall_ns = clock_unix_ns(),
		.hostname = hostname,
	};
	crypto_random(ret->entropy, sizeof(ret->entropy));
	crypto_random(ret->machine_id, sizeof(ret->machine_id));
	crypto_random(ret->boot_id, sizeof(ret->boot_id));
	/* RFC 4122, version 4: what the kernel's own boot_id looks like. */
	ret->boot_id[6] = (unsigned char)((ret->boot_id[6] & 0x0f) | 0x40);
	ret->boot_id[8] = (unsigned char)((ret->boot_id[8] & 0x3f) | 0x80);
}

static int wait_readable(int fd, int64_t deadline_ns, struct err *err)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (;;) {
		int64_t left_ms = (deadline_ns - clock_monotonic_ns() + NS_PER_MS - 1) / NS_PER_MS;
		if (left_ms <= 0)
			return err_set(err, ERR_TIMEOUT, "the guest says nothing");
		int ready = poll(&p, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return err_sys(err, "wait for the guest");
	}
}

static int fill(int fd, struct vm_reader *reader, int64_t deadline_ns, struct err *err)
{
	int rc = wait_readable(fd, deadline_ns, err);

	if (rc < 0)
		return rc;
	ssize_t got = read(fd, reader->bytes, sizeof(reader->bytes));
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got == 0 || (got < 0 && errno == ECONNRESET))
		return err_set(err, ERR_UNAVAILABLE, "the VM is gone");
	if (got < 0)
		return err_sys(err, "read from the guest");
	reader->unread = (struct str){reader->bytes, (size_t)got};
	return 0;
}

int vm_read_frame(int fd, struct vm_reader *reader, int64_t deadline_ns, struct guest_frame *ret, struct err *err)
{
	for (;;) {
		int rc = guest_decode(&reader->decoder, &reader->unread, ret, err);
		if (rc == GUEST_FRAME_READY)
			return 0;
		if (rc == 0)
			rc = fill(fd, reader, deadline_ns, err);
		if (rc < 0)
			return rc;
	}
}

int vm_wait_for_guest(int fd, int64_t deadline_ns, struct err *err)
{
	unsigned char said[GUEST_MAGIC_SIZE] = {0};
	size_t have = 0;

	while (have < sizeof(said)) {
		int rc = wait_readable(fd, deadline_ns, err);
		if (rc < 0)
			return rc;
		ssize_t got = read(fd, said + have, sizeof(said) - have);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0)
			return err_set(err, ERR_UNAVAILABLE, "the VM is gone");
		have += (size_t)got;
	}
	return memcmp(said, guest_beacon, sizeof(said)) == 0
		       ? 0
		       : err_set(err, ERR_INVALID, "the guest says something else than that it listens");
}

int vm_rehearse(int fd, struct vm_reader *reader, int64_t deadline_ns, struct err *err)
{
	uint64_t epoch = crypto_random_u64();
	struct guest_rehearsal rehearsal;
	autovar(buf) out = {0};
	struct guest_frame frame;

	guest_decoder_for_host(&reader->decoder, epoch);
	reader->unread = (struct str){0};
	guest_rehearse_encode(epoch, &out);
	int rc = file_write_fd(fd, buf_str(&out), err);
	if (rc == 0)
		rc = vm_read_frame(fd, reader, deadline_ns, &frame, err);
	if (rc == 0 && frame.type != GUEST_REHEARSED)
		rc = err_set(err, ERR_INVALID, "the guest says %s", guest_frame_name((int)frame.type));
	if (rc == 0)
		rc = guest_rehearsal_decode(frame.payload, &rehearsal, err);
	return rc < 0 ? err_wrap(err, "rehearsal") : 0;
}

int vm_handshake(int fd, const struct guest_hello *hello, struct vm_reader *reader, int64_t deadline_ns,
		 struct guest_ack *ret, struct err *err)
{
	autovar(buf) out = {0};
	struct guest_frame frame;

	guest_decoder_for_host(&reader->decoder, hello->epoch);
	reader->unread = (struct str){0};
	guest_hello_encode(hello, &out);
	int rc = file_write_fd(fd, buf_str(&out), err);
	if (rc == 0)
		rc = vm_read_frame(fd, reader, deadline_ns, &frame, err);
	if (rc == 0)
		rc = guest_ack_decode(frame.payload, ret, err);
	if (rc < 0)
		return err_wrap(err, "handshake");
	if ((ret->done & GUEST_DONE_NEEDED) != GUEST_DONE_NEEDED)
		return err_set(err, ERR_UNAVAILABLE, "handshake: the guest has not done all (%#x of %#x)", ret->done,
			       GUEST_DONE_NEEDED);
	return 0;
}
