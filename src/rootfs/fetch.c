#include "rootfs/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/http_client.h"

enum { TRIES_MAX = 5, VALIDATOR_MAX = 200, KEY_LEN = 24, RANGE_NOT_SATISFIABLE = 416, REDIRECTS_MAX = 8 };

static const int64_t idle_ns = 30 * NS_PER_S;
static const int64_t size_max = INT64_C(1) << 36; /* what no image reaches, and a disk may survive */

struct download {
	const struct fetch_opts *o;
	struct http_reply reply;
	char *path;
	char *validator_path;
	int fd;
	int64_t done;  /* bytes that the file has */
	int64_t total; /* -1: not known */
	bool begun;    /* this answer's first bytes have come */
	struct err err;
};

static void download_fini(struct download *d)
{
	http_reply_fini(&d->reply);
	fd_close(&d->fd);
	free(d->path);
	free(d->validator_path);
}
AUTOVAR_DEFINE(download)

/* The answer decides whether it goes on with what there is: 206, or begins anew. */
static int begin(struct download *d)
{
	const struct http_reply *r = &d->reply;

	d->begun = true;
	if (r->status != 206) {
		d->done = 0;
		if (ftruncate(d->fd, 0) != 0)
			return err_sys(&d->err, "empty %s", d->path);
	}
	if (lseek(d->fd, (off_t)d->done, SEEK_SET) < 0)
		return err_sys(&d->err, "write %s", d->path);
	d->total = r->length >= 0 ? d->done + r->length : -1;
	if (d->o->size > 0 && d->total >= 0 && d->total != d->o->size)
		return err_set(&d->err, ERR_INVALID, "%s has %lld bytes, and 'size' says %lld", d->o->url,
			       (long long)d->total, (long long)d->o->size);
	return file_write_atomic(AT_FDCWD, d->validator_path, str_c(r->validator), 0600, &d->err);
}

static int take(void *ctx, struct str bytes)
{
	struct download *d = ctx;
	int64_t max = d->o->size > 0 ? d->o->size : size_max;

	if (!d->begun && begin(d) < 0)
		return HTTP_STREAM_FAIL;
	if ((int64_t)bytes.len > max - d->done) {
		(void)err_set(&d->err, ERR_TOO_LARGE, "%s has more than %lld bytes", d->o->url, (long long)max);
		return HTTP_STREAM_FAIL;
	}
	if (file_write_fd(d->fd, bytes, &d->err) < 0)
		return HTTP_STREAM_FAIL;
	d->done += (int64_t)bytes.len;
	if (d->o->progress != NULL)
		d->o->progress(d->o->ctx, d->done, d->total);
	return 0;
}

static bool may_go_on(struct download *d, struct buf *validator)
{
	struct stat st;

	if (fstat(d->fd, &st) != 0 || st.st_size == 0)
		return false;
	if (file_read(AT_FDCWD, d->validator_path, VALIDATOR_MAX, validator, NULL) < 0 || validator->len == 0)
		return false;
	d->done = st.st_size;
	return true;
}

/* --- redirects --- */

static bool is_redirect(int status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* "https://host": its path and query may be somebody's key. */
static struct str origin_of(const char *url)
{
	const char *host = strstr(url, "://");

	return (struct str){url, host != NULL ? (size_t)(host + 3 - url) + strcspn(host + 3, "/?#") : strlen(url)};
}

/* Who was asked by https does not go on in the clear. */
static int next_hop(const struct http_reply *reply, char **url, unsigned hops, struct err *err)
{
	struct str to = reply->redirect != NULL ? origin_of(reply->redirect) : (struct str){0};

	if (to.len == 0)
		return err_set(err, ERR_INVALID, "%.*s answered %d without a place to go to", STR_ARG(origin_of(*url)),
			       reply->status);
	if (memchr(to.data, '@', to.len) != NULL)
		return err_set(err, ERR_INVALID, "%.*s redirects to an address with a user's name",
			       STR_ARG(origin_of(*url)));
	if (str_starts_with(str_c(*url), STR("https:")) && !str_starts_with(to, STR("https:")))
		return err_set(err, ERR_INVALID, "%.*s redirects to %.*s, which is not https: that is not followed",
			       STR_ARG(origin_of(*url)), STR_ARG(to));
	if (hops == REDIRECTS_MAX)
		return err_set(err, ERR_INVALID, "more than %d redirects, the last to %.*s", REDIRECTS_MAX,
			       STR_ARG(to));
	free(*url);
	*url = xstrdup(reply->redirect);
	return 0;
}

/* Always from the first address on: what a mirror or a release's host redirects to is good for a while only. */
static int call_and_follow(struct download *d, struct http_client *client, struct http_call *call, struct err *err)
{
	autofree char *url = xstrdup(d->o->url);

	for (unsigned hops = 0;; hops++) {
		http_reply_fini(&d->reply);
		*err = (struct err){0};
		call->url = url;
		int rc = http_client_do(client, call, &d->reply, err);
		if (!is_redirect(d->reply.status)) {
			if (rc < 0 && hops > 0 && d->reply.status != 0)
				return err_set(err, (enum err_code) - rc, "%.*s answered %d, to where %s redirects",
					       STR_ARG(origin_of(url)), d->reply.status, d->o->url);
			return rc;
		}
		rc = next_hop(&d->reply, &url, hops, err);
		if (rc < 0)
			return rc;
	}
}

/* --- one try --- */

/* From where the last one broke off. */
static int try_once(struct download *d, struct http_client *client, struct err *err)
{
	autovar(buf) validator = {0};
	autofree char *range = NULL;
	autofree char *condition = NULL;
	const char *headers[2];
	size_t count = 0;

	d->done = 0;
	d->begun = false;
	if (may_go_on(d, &validator)) {
		range = xasprintf("Range: bytes=%lld-", (long long)d->done);
		condition = xasprintf("If-Range: %s", validator.data);
		headers[count++] = range;
		headers[count++] = condition;
	}
	int rc = call_and_follow(d, client,
				 &(struct http_call){
					 .headers = headers,
					 .header_count = count,
					 .timeout_ns = INT64_MAX,
					 .idle_ns = idle_ns,
					 .take = take,
					 .stream_ctx = d,
				 },
				 err);
	if (d->err.code != 0)
		return err_set(err, (enum err_code)d->err.code, "%s", d->err.msg);
	/* A body without a byte. */
	return rc == 0 && !d->begun && count == 0 && ftruncate(d->fd, 0) != 0 ? err_sys(err, "empty %s", d->path) : rc;
}

static void pause_before(unsigned tried)
{
	clock_pause(http_backoff(tried, 500 * NS_PER_MS, 10 * NS_PER_S));
}

/* A try that brought something is none that failed. */
static int load(struct download *d, struct http_client *client, struct err *err)
{
	for (unsigned tried = 0;;) {
		int64_t before = d->done;
		int rc = try_once(d, client, err);
		if (rc == 0)
			return 0;
		bool cut = rc == -ERR_UNAVAILABLE || rc == -ERR_TIMEOUT;
		if (d->reply.status == RANGE_NOT_SATISFIABLE && d->done > 0) {
			/* It is complete, or was replaced by a shorter one: the digest says which, if there is one. */
			if (d->o->sha256 != NULL && d->done == d->o->size)
				return 0;
			if (ftruncate(d->fd, 0) != 0)
				return err_sys(err, "empty %s", d->path);
		} else if (!cut || d->err.code != 0) {
			return rc;
		}
		tried = d->begun && d->done > before ? 1 : tried + 1;
		if (tried >= TRIES_MAX || (!d->begun && tried >= 2))
			return rc;
		pause_before(tried);
	}
}

static int check(const struct download *d, struct err *err)
{
	autovar(buf) digest = {0};
	int64_t size = 0;

	if (lseek(d->fd, 0, SEEK_SET) != 0)
		return err_sys(err, "read %s", d->path);
	int rc = file_copy_fd(d->fd, -1, &digest, &size, err);
	if (rc < 0)
		return rc;
	if (d->o->size > 0 && size != d->o->size)
		return err_set(err, ERR_INVALID, "%s has %lld bytes, and 'size' says %lld", d->o->url, (long long)size,
			       (long long)d->o->size);
	if (d->o->sha256 != NULL && strcmp(digest.data, d->o->sha256) != 0)
		return err_set(err, ERR_INVALID, "%s has sha256 %s, and the configuration says %s", d->o->url,
			       digest.data, d->o->sha256);
	return 0;
}

/* Under the URL's own name, so that two bases never mix. */
static int open_file(struct download *d, struct err *err)
{
	autovar(buf) key = {0};
	struct sha256 sum = crypto_sha256(str_c(d->o->url));

	encode_hex((struct str){(const char *)sum.bytes, KEY_LEN / 2}, &key);
	d->path = xasprintf("%s/%s", d->o->folder, key.data);
	d->validator_path = xasprintf("%s.validator", d->path);
	int rc = dir_make(d->o->folder, 0755, err);
	if (rc < 0)
		return rc;
	d->fd = open(d->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	return d->fd < 0 ? err_sys(err, "open %s", d->path) : 0;
}

int fetch(const struct fetch_opts *o, char **ret_path, struct err *err)
{
	autovar(download) d = {.o = o, .fd = -1, .total = -1};
	autoptr(http_client) client = NULL;

	int rc = open_file(&d, err);
	if (rc < 0)
		return rc;
	if (o->sha256 == NULL || check(&d, NULL) < 0) {
		rc = http_client_new(NULL, &client, err);
		if (rc == 0)
			rc = load(&d, client, err);
		if (rc < 0)
			return rc;
		rc = check(&d, err);
	}
	if (rc < 0 || o->sha256 == NULL) /* the next time begins anew */
		(void)unlink(d.validator_path);
	if (rc < 0)
		(void)!ftruncate(d.fd, 0);
	else
		*ret_path = TAKE(d.path);
	return rc;
}
