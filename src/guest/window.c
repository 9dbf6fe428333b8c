#include "guest/window.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

int window_init(struct window *w, int disk_fd, int in_fd, int out_fd, struct err *err)
{
	void *bytes = mmap(NULL, GUEST_WINDOW_SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (bytes == MAP_FAILED)
		return err_sys(err, "take memory for an archive");
	*w = (struct window){.disk_fd = disk_fd, .in_fd = in_fd, .out_fd = out_fd, .bytes = bytes};
	return 0;
}

void window_fini(struct window *w)
{
	(void)munmap(w->bytes, GUEST_WINDOW_SLOT);
}

/* 0: the host has ended. */
static ssize_t hear(const struct window *w, char *words, size_t size, struct err *err)
{
	ssize_t got;

	do
		got = read(w->in_fd, words, size);
	while (got < 0 && errno == EINTR);
	return got < 0 ? err_sys(err, "hear from the host") : got;
}

static int say(const struct window *w, const struct buf *said, struct err *err)
{
	ssize_t sent;

	do
		sent = write(w->out_fd, said->data, said->len);
	while (sent < 0 && errno == EINTR);
	/* A pipe takes so few bytes at once or not at all. */
	return sent == (ssize_t)said->len ? 0 : err_sys(err, "speak to the host");
}

static size_t whole_blocks(size_t len)
{
	return (len + GUEST_WINDOW_BLOCK - 1) / GUEST_WINDOW_BLOCK * GUEST_WINDOW_BLOCK;
}

int window_receive(void *window, struct str *ret, struct err *err)
{
	struct window *w = window;
	struct buf said = {0};
	struct guest_piece piece;
	char words[64];

	while (!guest_window_first(&w->count, &piece)) {
		ssize_t got = hear(w, words, sizeof(words), err);
		if (got <= 0) {
			*ret = (struct str){NULL, 0};
			return (int)got;
		}
		int rc = guest_window_came(&w->count, (struct str){words, (size_t)got}, err);
		if (rc < 0)
			return rc;
	}
	ssize_t got = pread(w->disk_fd, w->bytes, whole_blocks(piece.len), (off_t)piece.at);
	if (got < 0)
		return err_sys(err, "read the window");
	if ((size_t)got < piece.len)
		return err_set(err, ERR_IO, "the window ends before a piece");
	guest_window_taken(&w->count, &said);
	int rc = say(w, &said, err);
	buf_fini(&said);
	*ret = (struct str){w->bytes, piece.len};
	return rc;
}

/* The last piece has a tail that nobody asked for, but that we may read: the sender's memory is a slot's. */
int window_send(void *window, struct str bytes, struct err *err)
{
	struct window *w = window;
	struct buf said = {0};
	char words[64];

	assert(bytes.len > 0 && bytes.len <= GUEST_WINDOW_SLOT);
	while (guest_window_full(&w->count)) {
		ssize_t got = hear(w, words, sizeof(words), err);
		if (got < 0)
			return (int)got;
		if (got == 0)
			return err_set(err, ERR_UNAVAILABLE, "the host takes no more");
		int rc = guest_window_returned(&w->count, (struct str){words, (size_t)got}, err);
		if (rc < 0)
			return rc;
	}
	size_t len = whole_blocks(bytes.len);
	if (pwrite(w->disk_fd, bytes.data, len, (off_t)guest_window_next(&w->count)) != (ssize_t)len)
		return err_sys(err, "write the window");
	guest_window_put(&w->count, (uint32_t)bytes.len, &said);
	int rc = say(w, &said, err);
	buf_fini(&said);
	return rc;
}
