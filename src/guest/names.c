#include "guest/names.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "guest/task.h"
#include "proto/dns_message.h"

/* Questions under way; the next one waits in the socket. TIMEOUT_S: longer than askers wait. */
enum { PORT = 53, QUERIES_MAX = 32, TIMEOUT_S = 30, LENGTH_SIZE = 2 };

struct query {
	int fd; /* -1: none */
	struct sockaddr_in asker;
	struct buf question; /* with its length before it */
	size_t sent;
	struct buf answer; /* the same, so far */
	time_t ends;
};

struct names {
	int udp;
	struct query queries[QUERIES_MAX];
};

static const struct sockaddr_in here = {
	.sin_family = AF_INET,
	.sin_port = __builtin_bswap16(PORT),
	.sin_addr = {__builtin_bswap32(0x7f000001)},
};

static time_t now_s(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void drop(struct query *q)
{
	(void)close(q->fd);
	q->fd = -1;
	buf_clear(&q->question);
	buf_clear(&q->answer);
}

static struct str message_of(const struct buf *b)
{
	return (struct str){b->data + LENGTH_SIZE, b->len - LENGTH_SIZE};
}

/* The connection to our own loopback is there at once, or never. */
static bool begin(struct query *q, struct str question, const struct sockaddr_in *asker)
{
	q->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (q->fd < 0)
		return false;
	if (connect(q->fd, (const struct sockaddr *)&here, sizeof(here)) != 0 ||
	    fcntl(q->fd, F_SETFL, O_NONBLOCK) != 0) {
		drop(q);
		return false;
	}
	q->asker = *asker;
	q->sent = 0;
	q->ends = now_s() + TIMEOUT_S;
	buf_putc(&q->question, (char)(question.len >> 8));
	buf_putc(&q->question, (char)question.len);
	buf_append_str(&q->question, question);
	return true;
}

static struct query *free_query(struct names *n)
{
	for (size_t i = 0; i < QUERIES_MAX; i++) {
		if (n->queries[i].fd < 0)
			return &n->queries[i];
	}
	return NULL;
}

static void say(const struct names *n, const struct buf *answer, const struct sockaddr_in *asker)
{
	(void)sendto(n->udp, answer->data, answer->len, MSG_DONTWAIT, (const struct sockaddr *)asker, sizeof(*asker));
}

/* The network has no IPv6: who asks for such addresses is not kept waiting, and does not try them. */
static void say_nothing(const struct names *n, struct str question, const struct sockaddr_in *asker)
{
	struct buf out = {0};

	dns_nothing(question, &out);
	say(n, &out, asker);
	buf_fini(&out);
}

static void take_question(struct names *n)
{
	char bytes[DNS_QUERY_MAX + 1];
	struct sockaddr_in asker;
	socklen_t len = sizeof(asker);
	ssize_t got = recvfrom(n->udp, bytes, sizeof(bytes), MSG_DONTWAIT, (struct sockaddr *)&asker, &len);
	struct query *q = free_query(n);

	struct str question = {bytes, got > 0 ? (size_t)got : 0};

	/* What is none gets no answer; the asker's own timeout tells him. */
	if (!dns_is_query(question))
		return;
	if (dns_type(question) == DNS_TYPE_AAAA)
		say_nothing(n, question, &asker);
	else if (q != NULL)
		(void)begin(q, question, &asker);
}

static void give_answer(struct names *n, struct query *q)
{
	struct str answer = message_of(&q->answer), question = message_of(&q->question);
	struct buf out = {0};

	if (dns_is_answer(answer, question)) {
		dns_fit(answer, question, &out);
		say(n, &out, &q->asker);
	}
	buf_fini(&out);
	drop(q);
}

static bool is_whole(const struct buf *b)
{
	const unsigned char *at = (const unsigned char *)b->data;

	return b->len >= LENGTH_SIZE && b->len - LENGTH_SIZE >= ((size_t)at[0] << 8 | at[1]);
}

static void receive(struct names *n, struct query *q)
{
	char bytes[4096];
	ssize_t got = recv(q->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		drop(q);
		return;
	}
	buf_append(&q->answer, bytes, (size_t)got);
	if (is_whole(&q->answer))
		give_answer(n, q);
}

static void advance(struct names *n, struct query *q)
{
	if (q->sent < q->question.len) {
		ssize_t sent =
			send(q->fd, q->question.data + q->sent, q->question.len - q->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		q->sent += sent > 0 ? (size_t)sent : 0;
	}
	receive(n, q);
}

static void turn(struct names *n)
{
	struct pollfd fds[1 + QUERIES_MAX];
	bool full = free_query(n) == NULL;

	fds[0] = (struct pollfd){.fd = full ? -1 : n->udp, .events = POLLIN};
	for (size_t i = 0; i < QUERIES_MAX; i++) {
		const struct query *q = &n->queries[i];
		bool unsent = q->fd >= 0 && q->sent < q->question.len;
		fds[1 + i] = (struct pollfd){.fd = q->fd, .events = unsent ? POLLIN | POLLOUT : POLLIN};
	}
	(void)poll(fds, 1 + QUERIES_MAX, 1000);
	for (size_t i = 0; i < QUERIES_MAX; i++) {
		struct query *q = &n->queries[i];
		if (q->fd >= 0 && fds[1 + i].revents != 0)
			advance(n, q);
		else if (q->fd >= 0 && now_s() >= q->ends)
			drop(q);
	}
	if (fds[0].revents != 0)
		take_question(n);
}

noreturn_fn static void run(int udp)
{
	static struct names n;
	static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT};

	(void)prctl(PR_SET_NAME, "nimbus-names");
	if (dup2(udp, STDIN_FILENO) < 0)
		_exit(1);
	task_be_ordinary(STDERR_FILENO + 1);
	/* What asks the job to end is not for us; what kills it kills us too. */
	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		(void)signal(ignored[i], SIG_IGN);
	(void)setsid();
	n.udp = STDIN_FILENO;
	for (size_t i = 0; i < QUERIES_MAX; i++)
		n.queries[i].fd = -1;
	for (;;)
		turn(&n);
}

void names_point_here(void)
{
	static const char text[] = "nameserver 127.0.0.1\n";

	/* The image's may be a link to what is not there. */
	(void)unlink("/etc/resolv.conf");
	int fd = open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return;
	ssize_t ignored = write(fd, text, sizeof(text) - 1);
	(void)ignored;
	(void)close(fd);
}

int names_start(struct err *err)
{
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (udp < 0)
		return err_sys(err, "make the socket for names");
	if (bind(udp, (const struct sockaddr *)&here, sizeof(here)) != 0) {
		int rc = err_sys(err, "listen for names");
		(void)close(udp);
		return rc;
	}
	pid_t pid = fork();
	if (pid == 0)
		run(udp);
	(void)close(udp);
	if (pid < 0)
		return err_sys(err, "start what brings names");
	return 0;
}
