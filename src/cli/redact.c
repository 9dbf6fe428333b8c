#include "cli/redact.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* A JWT has more; so short a word is none. LOOK_MAX bounds what is looked at in vain, and so the time for text that is
 * made to take long. */
enum { TOKEN_MIN = 20, GITHUB_MIN = 10, LOOK_MAX = 512, LINE_MAX = 128 };

static size_t span(struct str s, bool (*belongs)(char c), size_t max)
{
	size_t len = 0;

	while (len < s.len && len < max && belongs(s.data[len]))
		len++;
	return len;
}

static bool is_token(char c)
{
	return isalnum((unsigned char)c) || (c != '\0' && strchr("-_.~+/=", c) != NULL);
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

static bool is_address(char c)
{
	return !isspace((unsigned char)c) && c != '"' && c != '\'' && c != '<' && c != '>';
}

static bool begins(struct str s, const char *with)
{
	size_t len = strlen(with);

	return s.len >= len && strncasecmp(s.data, with, len) == 0;
}

/* Each gives how many bytes it has dealt with, 0: not its business. */

static size_t take_jwt(struct str s, struct buf *out)
{
	size_t len = begins(s, "eyJ") ? span(s, is_token, LOOK_MAX) : 0;

	if (len < TOKEN_MIN || str_find((struct str){s.data, len}, '.') < 0)
		return 0;
	buf_puts(out, "***");
	return span(s, is_token, s.len);
}

static size_t take_bearer(struct str s, struct buf *out)
{
	static const char word[] = "bearer ";
	size_t head = sizeof(word) - 1;

	if (!begins(s, word))
		return 0;
	size_t len = span((struct str){s.data + head, s.len - head}, is_token, s.len);
	buf_append(out, s.data, head);
	buf_puts(out, len > 0 ? "***" : "");
	return head + len;
}

static size_t take_github(struct str s, struct buf *out)
{
	static const char *const heads[] = {"ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_"};

	for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
		size_t len = begins(s, heads[i]) ? span(s, is_word, s.len) : 0;
		if (len >= strlen(heads[i]) + GITHUB_MIN) {
			buf_puts(out, "***");
			return len;
		}
	}
	return 0;
}

/* The rest of the text where its end is missing. */
static size_t take_private_key(struct str s, struct buf *out)
{
	static const char end[] = "-----END ";

	if (!begins(s, "-----BEGIN "))
		return 0;
	struct str rest = {s.data, s.len < LINE_MAX ? s.len : LINE_MAX};
	struct str line = str_cut(&rest, '\n');
	if (memmem(line.data, line.len, "PRIVATE KEY", strlen("PRIVATE KEY")) == NULL)
		return 0;
	buf_puts(out, "***");
	const char *at = memmem(s.data, s.len, end, sizeof(end) - 1);
	if (at == NULL)
		return s.len;
	size_t used = (size_t)(at - s.data) + sizeof(end) - 1;
	const char *dashes = memmem(s.data + used, s.len - used, "-----", 5);
	return dashes != NULL ? (size_t)(dashes - s.data) + 5 : s.len;
}

/* "://user:password@": whatever an '@' may end. */
static size_t take_password(struct str s, struct buf *out)
{
	if (!begins(s, "://"))
		return 0;
	size_t len = span((struct str){s.data + 3, s.len - 3}, is_address, LOOK_MAX);
	const char *at = len > 0 ? memrchr(s.data + 3, '@', len) : NULL;
	if (at == NULL)
		return 0;
	struct str user = {s.data + 3, (size_t)(at - s.data) - 3};
	ptrdiff_t colon = str_find(user, ':');
	if (colon < 0)
		return 0;
	buf_append(out, s.data, 3 + (size_t)colon);
	buf_puts(out, ":***");
	return (size_t)(at - s.data);
}

static void take_patterns(struct str text, struct buf *out)
{
	static size_t (*const takers[])(struct str s, struct buf * out) = {
		take_jwt, take_bearer, take_github, take_private_key, take_password,
	};
	bool inside = false; /* of a word: what begins there is none of ours */

	while (text.len > 0) {
		size_t used = 0;
		for (size_t i = 0; i < ARRAY_LEN(takers) && used == 0 && !inside; i++)
			used = takers[i](text, out);
		if (used == 0) {
			buf_putc(out, text.data[0]);
			inside = is_word(text.data[0]);
			used = 1;
		}
		text.data += used;
		text.len -= used;
		if (text.len > 0 && text.data[0] == ':')
			inside = false;
	}
}

void redact(struct masker *known, struct str text, struct buf *out)
{
	autovar(buf) masked = {0};

	masker_apply(known, text, &masked);
	take_patterns(buf_str(&masked), out);
}
