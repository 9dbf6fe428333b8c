#include "net/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

enum { FILE_MAX = 256 * 1024, CHAIN_MAX = 16, KEY_ID_MAX = 64 };
/* No handshake lasts so long: slow ones are cut. */
#define RETIRED_NS (300 * NS_PER_S)

struct tls {
	pthread_mutex_t lock; /* guards all below */
	struct tls_pair *current;
	struct tls_pair *retired;
	unsigned char id[KEY_ID_MAX]; /* of the certificate, to tell whether it changed */
	size_t id_len;
};

static void tls_pair_free(struct tls_pair *p)
{
	gnutls_pcert_st *chain = p != NULL ? p->chain : NULL;

	if (p == NULL)
		return;
	for (unsigned i = 0; i < p->chain_count; i++)
		gnutls_pcert_deinit(&chain[i]);
	gnutls_privkey_deinit(p->key);
	free(chain);
	free(p);
}
AUTOPTR_DEFINE(tls_pair)

static int tls_error(struct err *err, const char *what, const char *path, int code)
{
	return err_set(err, ERR_INVALID, "%s %s: %s", what, path, gnutls_strerror(code));
}

static void wipe(struct buf *secret)
{
	if (secret->data != NULL)
		explicit_bzero(secret->data, secret->len);
	buf_fini(secret);
}

/* --- the key --- */

static int check_mode(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return err_sys(err, "the TLS key %s", path);
	if ((st.st_mode & (S_IWGRP | S_IRWXO)) != 0)
		return err_set(
			err, ERR_INVALID,
			"the TLS key %s is open to others (mode %04o): chmod 0600 it, and make a new key if others "
			"may have read it",
			path, (unsigned)(st.st_mode & 07777));
	return 0;
}

static int load_key(const char *path, struct tls_pair *p, struct err *err)
{
	__attribute__((cleanup(wipe))) struct buf text = {0};
	gnutls_privkey_t key = NULL;

	int rc = check_mode(path, err);
	if (rc == 0)
		rc = file_read(AT_FDCWD, path, FILE_MAX, &text, err);
	if (rc < 0)
		return err_wrap(err, "NIMBUS_TLS_KEY");
	if (gnutls_privkey_init(&key) != 0)
		return err_set(err, ERR_INTERNAL, "no room for a TLS key");
	p->key = key;
	const gnutls_datum_t data = {(unsigned char *)text.data, (unsigned)text.len};
	int code = gnutls_privkey_import_x509_raw(key, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
	return code < 0 ? tls_error(err, "NIMBUS_TLS_KEY is no PEM key without a password:", path, code) : 0;
}

/* --- the certificate --- */

static void write_day(time_t at, char out[32])
{
	struct tm tm = {0};

	(void)gmtime_r(&at, &tm);
	(void)strftime(out, 32, "%Y-%m-%d %H:%M UTC", &tm);
}

static int check_validity(gnutls_x509_crt_t crt, const char *path, struct err *err)
{
	time_t now = (time_t)(clock_unix_ns() / NS_PER_S);
	time_t from = gnutls_x509_crt_get_activation_time(crt);
	time_t until = gnutls_x509_crt_get_expiration_time(crt);
	char day[32];

	if (until < now) {
		write_day(until, day);
		return err_set(err, ERR_INVALID,
			       "the TLS certificate %s expired on %s: renew it, then start or send SIGHUP", path, day);
	}
	if (from > now) {
		write_day(from, day);
		return err_set(err, ERR_INVALID, "the TLS certificate %s is valid only from %s: check the clock", path,
			       day);
	}
	return 0;
}

static int check_match(gnutls_x509_crt_t crt, const struct tls_pair *p, const char *certificate, const char *key_path,
		       struct err *err)
{
	unsigned char ids[2][KEY_ID_MAX];
	size_t lens[2] = {KEY_ID_MAX, KEY_ID_MAX};
	gnutls_pubkey_t public = NULL;
	bool same = gnutls_pubkey_init(&public) == 0 && gnutls_pubkey_import_privkey(public, p->key, 0, 0) == 0 &&
		    gnutls_pubkey_get_key_id(public, 0, ids[0], &lens[0]) == 0 &&
		    gnutls_x509_crt_get_key_id(crt, 0, ids[1], &lens[1]) == 0 && lens[0] == lens[1] &&
		    memcmp(ids[0], ids[1], lens[0]) == 0;

	if (public != NULL)
		gnutls_pubkey_deinit(public);
	return same ? 0
		    : err_set(err, ERR_INVALID,
			      "the TLS key %s is not the key of the certificate %s: they are of two pairs, or the "
			      "first "
			      "certificate in the file is not the server's own",
			      key_path, certificate);
}

static int take_chain(gnutls_x509_crt_t *crts, unsigned count, const char *path, struct tls_pair *p, struct err *err)
{
	gnutls_pcert_st *chain = xcalloc(count, sizeof(*chain));

	p->chain = chain;
	for (; p->chain_count < count; p->chain_count++) {
		int code = gnutls_pcert_import_x509(&chain[p->chain_count], crts[p->chain_count], 0);
		if (code < 0)
			return tls_error(err, "NIMBUS_TLS_CERTIFICATE", path, code);
	}
	p->expires_at = (int64_t)gnutls_x509_crt_get_expiration_time(crts[0]) * NS_PER_S;
	return 0;
}

static int check_chain(gnutls_x509_crt_t *crts, unsigned count, const char *path, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < count && rc == 0; i++)
		rc = check_validity(crts[i], path, err);
	return rc;
}

static int load_chain(const char *path, const char *key_path, struct tls_pair *p, unsigned char *id, size_t *id_len,
		      struct err *err)
{
	autovar(buf) text = {0};
	gnutls_x509_crt_t *crts = NULL;
	unsigned count = 0;

	int rc = file_read(AT_FDCWD, path, FILE_MAX, &text, err);
	if (rc < 0)
		return err_wrap(err, "NIMBUS_TLS_CERTIFICATE");
	const gnutls_datum_t data = {(unsigned char *)text.data, (unsigned)text.len};
	int code = gnutls_x509_crt_list_import2(&crts, &count, &data, GNUTLS_X509_FMT_PEM, GNUTLS_X509_CRT_LIST_SORT);
	if (code < 0)
		return tls_error(err, "NIMBUS_TLS_CERTIFICATE is no chain of PEM certificates:", path, code);
	if (count == 0 || count > CHAIN_MAX)
		rc = err_set(err, ERR_INVALID, "NIMBUS_TLS_CERTIFICATE %s has %u certificates", path, count);
	if (rc == 0)
		rc = check_chain(crts, count, path, err);
	if (rc == 0)
		rc = check_match(crts[0], p, path, key_path, err);
	if (rc == 0)
		rc = take_chain(crts, count, path, p, err);
	if (rc == 0 && gnutls_x509_crt_get_fingerprint(crts[0], GNUTLS_DIG_SHA256, id, id_len) != 0)
		rc = err_set(err, ERR_INTERNAL, "the fingerprint of %s", path);
	for (unsigned i = 0; i < count; i++)
		gnutls_x509_crt_deinit(crts[i]);
	gnutls_free(crts);
	return rc;
}

/* --- the pair --- */

int tls_reload(struct tls *t, const char *certificate, const char *key, struct buf *changed, struct err *err)
{
	autoptr(tls_pair) p = xcalloc(1, sizeof(*p));
	unsigned char id[KEY_ID_MAX];
	size_t id_len = sizeof(id);
	char day[32];

	int rc = load_key(key, p, err);
	if (rc == 0)
		rc = load_chain(certificate, key, p, id, &id_len, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&t->lock);
	bool same = t->current != NULL && id_len == t->id_len && memcmp(id, t->id, id_len) == 0;
	if (!same) {
		int64_t now = clock_monotonic_ns();
		for (struct tls_pair **at = &t->retired; *at != NULL;) {
			struct tls_pair *old = *at;
			if (now - old->retired_ns < RETIRED_NS) {
				at = &old->next;
				continue;
			}
			*at = old->next;
			tls_pair_free(old);
		}
		if (t->current != NULL) {
			t->current->retired_ns = now;
			t->current->next = t->retired;
			t->retired = t->current;
		}
		write_day((time_t)(p->expires_at / NS_PER_S), day);
		buf_printf(changed, "%sTLS certificate, valid until %s", changed->len > 0 ? ", " : "", day);
		t->current = TAKE(p);
		memcpy(t->id, id, id_len);
		t->id_len = id_len;
	}
	pthread_mutex_unlock(&t->lock);
	return 0;
}

int tls_open(const char *certificate, const char *key, struct tls **ret, struct err *err)
{
	autoptr(tls) t = xcalloc(1, sizeof(*t));
	autovar(buf) changed = {0};

	pthread_mutex_init(&t->lock, NULL);
	int rc = tls_reload(t, certificate, key, &changed, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(t);
	return 0;
}

const struct tls_pair *tls_current(struct tls *t)
{
	pthread_mutex_lock(&t->lock);
	const struct tls_pair *p = t->current;
	pthread_mutex_unlock(&t->lock);
	return p;
}

void tls_free(struct tls *t)
{
	if (t == NULL)
		return;
	tls_pair_free(t->current);
	while (t->retired != NULL) {
		struct tls_pair *next = t->retired->next;
		tls_pair_free(t->retired);
		t->retired = next;
	}
	pthread_mutex_destroy(&t->lock);
	free(t);
}
