#include "shim/window.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void window_begin(struct window *w, int fd)
{
	*w = (struct window){.fd = fd};
}

void window_free_memory(const struct window *w)
{
	(void)fallocate(w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, GUEST_WINDOW_SIZE);
}

/* --- into the guest --- */

size_t window_room(const struct window *w)
{
	return (GUEST_WINDOW_SLOTS - w->count.count) * GUEST_WINDOW_SLOT - w->done;
}

void window_finish(struct window *w, struct buf *say)
{
	if (w->done == 0)
		return;
	guest_window_put(&w->count, (uint32_t)w->done, say);
	w->done = 0;
}

static int write_at(const struct window *w, struct str bytes, size_t at, struct err *err)
{
	while (bytes.len > 0) {
		ssize_t done = pwrite(w->fd, bytes.data, bytes.len, (off_t)at);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return err_sys(err, "write to the VM's window");
		bytes.data += done;
		bytes.len -= (size_t)done;
		at += (size_t)done;
	}
	return 0;
}

int window_put(struct window *w, struct str bytes, struct buf *say, struct err *err)
{
	assert(bytes.len <= window_room(w));
	while (bytes.len > 0) {
		size_t room = GUEST_WINDOW_SLOT - w->done;
		struct str piece = {bytes.data, bytes.len < room ? bytes.len : room};
		int rc = write_at(w, piece, guest_window_next(&w->count) + w->done, err);
		if (rc < 0)
			return rc;
		w->done += piece.len;
		bytes.data += piece.len;
		bytes.len -= piece.len;
		if (w->done == GUEST_WINDOW_SLOT)
			window_finish(w, say);
	}
	return 0;
}

int window_returned(struct window *w, struct str bytes, struct err *err)
{
	return guest_window_returned(&w->count, bytes, err);
}

/* --- out of the guest --- */

int window_came(struct window *w, struct str bytes, struct err *err)
{
	return guest_window_came(&w->count, bytes, err);
}

ptrdiff_t window_get(struct window *w, char *to, size_t cap, struct buf *say, struct err *err)
{
	struct guest_piece piece;
	ssize_t got;

	if (!guest_window_first(&w->count, &piece))
		return 0;
	size_t left = piece.len - w->done;
	do
		got = pread(w->fd, to, left < cap ? left : cap, (off_t)(piece.at + w->done));
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return err_sys(err, "read the VM's window");
	if (got == 0)
		return err_set(err, ERR_IO, "the VM's window ends before its piece");
	w->done += (size_t)got;
	if (w->done == piece.len) {
		guest_window_taken(&w->count, say);
		w->done = 0;
	}
	return got;
}
