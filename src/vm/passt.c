#include "vm/passt.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/mem.h"
#include "vm/driver.h"

#define ADDRESS "10.0.2.15"
#define GATEWAY "10.0.2.2"

enum {
	ADDRESS_NUMBER = 0x0a00020f,
	GATEWAY_NUMBER = 0x0a000202,
	PREFIX = 24,
	LENGTH_SIZE = 4, /* before each frame, big-endian: how QEMU's streams carry them */
	ETHERNET_SIZE = 14,
	ARP_SIZE = 28,
	ARP_FRAME_SIZE = ETHERNET_SIZE + ARP_SIZE,
	ANSWER_MAX = 64 * 1024,
	COMPLAINT_MAX = 160,
	PROBE_S = 3,
};

int passt_find(char **ret, struct err *err)
{
	int rc = vm_find_program(PASST_PROGRAM, ret, NULL);

	return rc < 0 ? err_set(err, ERR_UNAVAILABLE,
				"network 'open' needs " PASST_PROGRAM
				", which is not installed on this host (Debian: apt-get install passt)")
		      : 0;
}

/*
 * No limits of ours: they are set on what runs already, and it changes its user at once; it sets its own.
 * IPv4 only, as the host's own addresses are less open by it; --no-map-gw: else the gateway's address stands for the
 * host's loopback. No ports of the host lead in. The guest has its address from its hello, and names from its shim.
 */
static const char *const arguments[] = {
	"passt", "-f",	  "-q", "-e",	"-4", "--no-map-gw", "--no-dhcp", "-a",	  ADDRESS, "-n",   "24",
	"-g",	 GATEWAY, "-t", "none", "-u", "none",	     "-D",	  "none", "-S",	   "none",
};

static int make_stream(struct passt *p, struct err *err)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return err_sys(err, "make the network's stream");
	p->vm_fd = ends[0];
	vm_launch_arg(&p->launch, "-F");
	vm_launch_arg(&p->launch, "%d", vm_launch_fd(&p->launch, ends[1]));
	if (fcntl(p->vm_fd, F_SETFL, O_NONBLOCK) != 0)
		return err_sys(err, "make the network's stream");
	return 0;
}

static int make_words(struct passt *p, struct err *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return err_sys(err, "make passt's pipe");
	p->words_fd = ends[0];
	vm_launch_output(&p->launch, ends[1]);
	if (fcntl(p->words_fd, F_SETFL, O_NONBLOCK) != 0)
		return err_sys(err, "make passt's pipe");
	return 0;
}

static void choose_network(struct guest_network *n)
{
	*n = (struct guest_network){.address = ADDRESS_NUMBER, .prefix = PREFIX, .gateway = GATEWAY_NUMBER};
	crypto_random(n->mac, sizeof(n->mac));
	n->mac[0] = (unsigned char)((n->mac[0] & 0xfc) | 2); /* one device's, given out by nobody */
}

int passt_prepare(struct passt *ret, struct err *err)
{
	autofree char *program = NULL;
	struct passt p = {.vm_fd = -1, .words_fd = -1};

	int rc = passt_find(&program, err);
	if (rc < 0)
		return rc;
	vm_launch_init(&p.launch, program);
	for (size_t i = 0; i < ARRAY_LEN(arguments); i++)
		vm_launch_arg(&p.launch, "%s", arguments[i]);
	choose_network(&p.network);
	rc = make_stream(&p, err);
	if (rc == 0)
		rc = make_words(&p, err);
	if (rc < 0) {
		passt_fini(&p);
		return rc;
	}
	*ret = p;
	return 0;
}

void passt_fini(struct passt *p)
{
	vm_launch_fini(&p->launch);
	fd_close(&p->vm_fd);
	fd_close(&p->words_fd);
	buf_fini(&p->answer);
}

/* --- whether it works --- */

static void put_be(struct buf *out, uint32_t value, unsigned bytes)
{
	while (bytes-- > 0)
		buf_putc(out, (char)(value >> (8 * bytes)));
}

/* RFC 826: who has the gateway's address? */
int passt_ask(struct passt *p, struct err *err)
{
	static const unsigned char everybody[GUEST_MAC_SIZE] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const unsigned char unknown[GUEST_MAC_SIZE] = {0};
	autovar(buf) frame = {0};

	put_be(&frame, ARP_FRAME_SIZE, LENGTH_SIZE);
	buf_append(&frame, everybody, sizeof(everybody));
	buf_append(&frame, p->network.mac, GUEST_MAC_SIZE);
	put_be(&frame, 0x0806, 2);     /* ARP */
	put_be(&frame, 0x00010800, 4); /* of Ethernet, for IPv4 */
	put_be(&frame, 0x0604, 2);     /* sizes of their addresses */
	put_be(&frame, 1, 2);	       /* a request */
	buf_append(&frame, p->network.mac, GUEST_MAC_SIZE);
	put_be(&frame, p->network.address, 4);
	buf_append(&frame, unknown, sizeof(unknown));
	put_be(&frame, p->network.gateway, 4);
	if (send(p->vm_fd, frame.data, frame.len, MSG_NOSIGNAL) != (ssize_t)frame.len)
		return err_sys(err, "write to the network's stream");
	return 0;
}

static uint32_t get_be(const char *at, unsigned bytes)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value = value << 8 | (unsigned char)at[i];
	return value;
}

/* An ARP reply, from the gateway. */
static bool is_answer(const struct passt *p, const char *frame, size_t len)
{
	const char *arp = frame + ETHERNET_SIZE;

	return len >= ARP_FRAME_SIZE && get_be(frame + 12, 2) == 0x0806 && get_be(arp + 6, 2) == 2 &&
	       get_be(arp + 14, 4) == p->network.gateway;
}

/* Frames at the front that are whole; they are the device's that comes later, which does without. */
static bool take_frames(struct passt *p)
{
	bool answered = false;

	while (p->answer.len >= LENGTH_SIZE) {
		size_t len = get_be(p->answer.data, LENGTH_SIZE);
		if (p->answer.len - LENGTH_SIZE < len)
			break;
		answered = answered || is_answer(p, p->answer.data + LENGTH_SIZE, len);
		buf_consume(&p->answer, LENGTH_SIZE + len);
	}
	return answered;
}

int passt_answered(struct passt *p, struct err *err)
{
	char bytes[4096];
	ssize_t got = recv(p->vm_fd, bytes, sizeof(bytes), 0);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return PASST_NOT_YET;
	if (got <= 0)
		return err_set(err, ERR_UNAVAILABLE, "passt has closed its stream");
	buf_append(&p->answer, bytes, (size_t)got);
	if (p->answer.len > ANSWER_MAX)
		return err_set(err, ERR_UNAVAILABLE, "passt says something else than was asked");
	/* The stream is the VM's from here on, so it must stand between two frames. */
	if (!take_frames(p) || p->answer.len > 0)
		return PASST_NOT_YET;
	if (fcntl(p->vm_fd, F_SETFL, 0) != 0)
		return err_sys(err, "hand over the network's stream");
	return 0;
}

void passt_complaint(struct str words, struct buf *ret)
{
	size_t start = ret->len;

	while (words.data != NULL) {
		struct str line = str_trim(str_cut(&words, '\n'));
		/* About its own log, and that it has done what we want of it. */
		if (line.len == 0 || str_starts_with(line, STR("Failed to send")) ||
		    str_starts_with(line, STR("Don't run as root")))
			continue;
		if (ret->len > start)
			buf_puts(ret, "; ");
		for (size_t i = 0; i < line.len && ret->len - start < COMPLAINT_MAX; i++) {
			char c = line.data[i];
			if (c < ' ' || c > '~')
				c = '?';
			buf_putc(ret, c);
		}
	}
}

/* --- the trial --- */

static int wait_for_answer(struct passt *p, struct err *err)
{
	int64_t by_ns = clock_monotonic_ns() + PROBE_S * NS_PER_S;

	for (;;) {
		struct pollfd stream = {.fd = p->vm_fd, .events = POLLIN};
		int64_t left_ms = (by_ns - clock_monotonic_ns()) / NS_PER_MS;
		if (left_ms <= 0 || poll(&stream, 1, (int)left_ms) == 0)
			return err_set(err, ERR_UNAVAILABLE, "passt did not answer in time");
		int rc = passt_answered(p, err);
		if (rc != PASST_NOT_YET)
			return rc;
	}
}

static void end(struct process *process)
{
	struct process_exit ignored;

	if (process_signal(process, SIGKILL, NULL) < 0 || process_wait(process, INT64_MAX, &ignored, NULL) < 0)
		fd_close(&process->pidfd);
}

int passt_probe(struct err *err)
{
	autovar(passt) p = {.vm_fd = -1, .words_fd = -1};
	autovar(buf) complaint = {0};
	struct process process;
	char words[4096];

	int rc = passt_prepare(&p, err);
	if (rc == 0)
		rc = passt_ask(&p, err);
	if (rc == 0)
		rc = vm_launch(&p.launch, &process, err);
	if (rc < 0)
		return rc;
	rc = wait_for_answer(&p, err);
	end(&process);
	ssize_t len = rc < 0 ? read(p.words_fd, words, sizeof(words)) : 0;
	passt_complaint((struct str){words, len > 0 ? (size_t)len : 0}, &complaint);
	if (rc < 0 && complaint.len > 0)
		return err_set(err, ERR_UNAVAILABLE, "passt does not start on this host: %.*s",
			       STR_ARG(buf_str(&complaint)));
	return rc;
}
