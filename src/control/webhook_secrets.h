/*
 * The secrets that webhooks may be signed with: the one of now and, while it is changed, those before it. SIGHUP reads
 * them again.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "model/settings.h"
#include "proto/webhook_signature.h"

struct webhook_secrets;

/* Copies them. */
struct webhook_secrets *webhook_secrets_new(const struct control_settings *settings) must_check;
void webhook_secrets_free(struct webhook_secrets *s);
AUTOPTR_DEFINE(webhook_secrets)

/* webhook_verify() with the secrets of now; policy's own are not read. ERR_FORBIDDEN too where there is none. */
int webhook_secrets_verify(struct webhook_secrets *s, const struct webhook_headers *headers,
			   const struct webhook_policy *policy, struct str body, int64_t now_at, const char **ret_nonce,
			   struct err *err) must_check;
bool webhook_secrets_any(struct webhook_secrets *s);

/* A role_reload_fn; `ctx` is the secrets. */
int webhook_secrets_reload(void *ctx, const struct common_settings *common, const void *settings, struct buf *changed,
			   struct err *err) must_check;
