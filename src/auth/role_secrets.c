#include "auth/role_secrets.h"

int control_secrets(const struct control_settings *s, struct verifier_secrets *ret, struct err *err)
{
	const struct verifier_secrets secrets = {
		.agent = {"NIMBUS_AGENT_TOKEN_SECRET", s->agent_token_secret, &s->agent_token_secret_fallbacks},
		.admin = {"NIMBUS_JWT_SECRET", s->jwt_secret, &s->jwt_secret_fallbacks},
		.user = {"NIMBUS_SSO_SESSION_SECRET", s->sso_session_secret, &s->sso_session_secret_fallbacks},
	};
	const struct token_secrets others[] = {
		{"NIMBUS_GITHUB_WEBHOOK_SECRET", s->webhook_secret, &s->webhook_secret_fallbacks},
		{"NIMBUS_METRICS_TOKEN", s->metrics_token, NULL},
	};
	int r = token_secrets_check(&secrets, others, ARRAY_LEN(others), err);

	if (r == 0)
		*ret = secrets;
	return r;
}

int logging_secrets(const struct logging_settings *s, struct verifier_secrets *ret, bool *ret_cache_is_short,
		    struct err *err)
{
	const bool brief = s->cache_shared_secret != NULL && secret_len(s->cache_shared_secret) < TOKEN_SECRET_MIN;
	const struct verifier_secrets secrets = {
		.admin = {"NIMBUS_JWT_SECRET", s->jwt_secret, &s->jwt_secret_fallbacks},
		.user = {"NIMBUS_SSO_SESSION_SECRET", s->sso_session_secret, &s->sso_session_secret_fallbacks},
		.cache = {"NIMBUS_CACHE_SHARED_SECRET", brief ? NULL : s->cache_shared_secret,
			  &s->cache_shared_secret_fallbacks},
	};
	const struct token_secrets others[] = {{"NIMBUS_LOGGING_METRICS_TOKEN", s->metrics_token, NULL}};
	int r = token_secrets_check(&secrets, others, ARRAY_LEN(others), err);

	if (r == 0) {
		*ret = secrets;
		*ret_cache_is_short = brief;
	}
	return r;
}
