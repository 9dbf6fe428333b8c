#include "control/webhook_secrets.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"

struct webhook_secrets {
	pthread_rwlock_t lock; /* guards the two below */
	struct secret **items;
	size_t count;
};

static void free_items(struct secret **items, size_t count)
{
	for (size_t i = 0; i < count; i++)
		secret_free(items[i]);
	free(items);
}

/* The first one is that of now. */
static struct secret **copy_items(const struct control_settings *settings, size_t *ret_count)
{
	const struct config_secrets *older = &settings->webhook_secret_fallbacks;
	struct secret **items = xcalloc(older->count + 1, sizeof(*items));

	*ret_count = 0;
	if (settings->webhook_secret != NULL)
		items[(*ret_count)++] = secret_dup(settings->webhook_secret);
	for (size_t i = 0; i < older->count; i++)
		items[(*ret_count)++] = secret_dup(older->items[i]);
	return items;
}

struct webhook_secrets *webhook_secrets_new(const struct control_settings *settings)
{
	struct webhook_secrets *s = xcalloc(1, sizeof(*s));

	pthread_rwlock_init(&s->lock, NULL);
	s->items = copy_items(settings, &s->count);
	return s;
}

void webhook_secrets_free(struct webhook_secrets *s)
{
	if (s == NULL)
		return;
	free_items(s->items, s->count);
	pthread_rwlock_destroy(&s->lock);
	free(s);
}

int webhook_secrets_verify(struct webhook_secrets *s, const struct webhook_headers *headers,
			   const struct webhook_policy *policy, struct str body, int64_t now_at, const char **ret_nonce,
			   struct err *err)
{
	struct webhook_policy full = *policy;

	pthread_rwlock_rdlock(&s->lock);
	full.secrets = s->items;
	full.secret_count = s->count;
	int rc = webhook_verify(headers, &full, body, now_at, ret_nonce, err);
	pthread_rwlock_unlock(&s->lock);
	return rc;
}

bool webhook_secrets_any(struct webhook_secrets *s)
{
	pthread_rwlock_rdlock(&s->lock);
	bool any = s->count > 0;
	pthread_rwlock_unlock(&s->lock);
	return any;
}

static bool same(const struct webhook_secrets *s, struct secret *const *items, size_t count)
{
	bool equal = s->count == count;

	for (size_t i = 0; equal && i < count; i++)
		equal = secret_equal(s->items[i], secret_reveal(items[i]) /* compared only */);
	return equal;
}

/* Only this function writes, in the one thread that takes signals. */
int webhook_secrets_reload(void *ctx, const struct common_settings *common, const void *settings, struct buf *changed,
			   struct err *err)
{
	struct webhook_secrets *s = ctx;
	size_t count = 0;
	struct secret **items = copy_items(settings, &count);

	(void)common;
	(void)err;
	if (same(s, items, count)) {
		free_items(items, count);
		return 0;
	}
	pthread_rwlock_wrlock(&s->lock);
	struct secret **old = s->items;
	size_t old_count = s->count;
	s->items = items;
	s->count = count;
	pthread_rwlock_unlock(&s->lock);
	free_items(old, old_count);
	buf_printf(changed, "%zu webhook secrets", count);
	return 0;
}
