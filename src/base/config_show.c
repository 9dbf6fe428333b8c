/*
 * Settings for people: what config show and the reference page say of them.
 */
#include <string.h>

#include "base/config_entry.h"

void config_reserved(const struct config_source *s, const struct config_table *table, struct buf *out)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		if (config_key_reserved(key) && config_entry_of(s, key) != NULL)
			buf_printf(out, "%s%s", out->len > 0 ? "," : "", key->name);
	}
}

const char *config_type_name(enum config_type type)
{
	static const char *const names_of_types[] = {
		[CONFIG_TEXT] = "text",	   [CONFIG_SECRET] = "secret",	  [CONFIG_INT] = "integer",
		[CONFIG_BOOL] = "boolean", [CONFIG_DURATION] = "seconds", [CONFIG_SIZE] = "bytes",
		[CONFIG_REAL] = "number",  [CONFIG_LIST] = "list",	  [CONFIG_SECRETS] = "secrets",
		[CONFIG_URL] = "url",	   [CONFIG_DSN] = "database",
	};

	return names_of_types[type];
}

static bool looks_secret(struct str option)
{
	static const char *const words[] = {"pass", "secret", "token", "key"};
	bool found = false;

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		found = found || memmem(option.data, option.len, words[i], strlen(words[i])) != NULL;
	return found;
}

/* ?a=b&password=c */
static void put_options(struct str options, struct buf *out)
{
	while (options.data != NULL) {
		struct str value = str_cut(&options, '&');
		struct str name = str_cut(&value, '=');
		buf_append_str(out, name);
		if (value.data != NULL) {
			buf_putc(out, '=');
			buf_append_str(out, looks_secret(name) ? STR("***") : value);
		}
		if (options.data != NULL)
			buf_putc(out, '&');
	}
}

/* scheme://user:password@host/path?options: whatever an '@' may end is taken for a password, for people forget to
 * escape the '/' in theirs. */
static void put_address(struct str value, struct buf *out)
{
	const char *sign = memmem(value.data, value.len, "://", 3);
	size_t head = (size_t)(sign + 3 - value.data);
	struct str rest = {value.data + head, value.len - head};
	const char *at = rest.len > 0 ? memrchr(rest.data, '@', rest.len) : NULL;

	buf_append(out, value.data, head);
	if (at != NULL) {
		struct str user = {rest.data, (size_t)(at - rest.data)};
		bool password = str_find(user, ':') >= 0;
		buf_append_str(out, str_cut(&user, ':'));
		buf_puts(out, password ? ":***" : "");
		rest = (struct str){at, rest.len - (size_t)(at - rest.data)};
	}
	struct str options = rest;
	buf_append_str(out, str_cut(&options, '?'));
	if (options.data != NULL) {
		buf_putc(out, '?');
		put_options(options, out);
	}
}

static void put_shown(const struct config_key *key, struct str value, struct buf *out)
{
	bool address = value.len > 0 && memmem(value.data, value.len, "://", 3) != NULL;

	if (address)
		put_address(value, out);
	else if (key->type == CONFIG_DSN && (str_find(value, '@') >= 0 || str_find(value, '=') >= 0))
		buf_puts(out, "***"); /* no address as we know them, but a password perhaps */
	else
		buf_append_str(out, value);
}

struct config_item config_item(const struct config_source *s, const struct config_key *key, struct buf *text)
{
	const struct config_entry *e = config_entry_of(s, key);
	struct config_item item = {.set = e != NULL, .secret = config_key_secret(key) || config_key_reserved(key)};

	item.origin = e != NULL ? e->origin : key->fallback != NULL ? "default" : "unset";
	if (e != NULL && config_entry_names_file(e, key))
		buf_printf(text, "(in %s)", e->value);
	else if (e != NULL && item.secret)
		buf_puts(text, "(set)");
	else if (e != NULL)
		put_shown(key, str_c(e->value), text);
	else if (key->fallback != NULL)
		buf_puts(text, key->fallback);
	return item;
}

void config_document(const struct config_table *table, struct buf *out)
{
	buf_puts(out, "| Variable | Default | Meaning |\n|---|---|---|\n");
	for (size_t i = 0; i < table->count; i++) {
		const struct config_key *key = &table->keys[i];
		if (config_key_reserved(key))
			continue;
		buf_printf(out, "| `%s` | ", key->name);
		if (key->fallback != NULL)
			buf_printf(out, "`%s` | ", key->fallback);
		else
			buf_puts(out, (key->flags & CONFIG_REQUIRED) != 0 ? "required | " : "| ");
		buf_puts(out, key->help);
		if (config_key_secret(key))
			buf_printf(out, " Secret; also as `%s_FILE`.", key->name);
		if ((key->flags & CONFIG_RELOADABLE) != 0)
			buf_puts(out, " Read again on SIGHUP.");
		buf_puts(out, " |\n");
	}
}
