#include "cli/redact.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* A JWT has more; so short a word is none. LOOK_MAX bounds what is looked at in vain, and so the time for text that is
 * made to take long. */
enum { TOKEN_MIN = 20, RANDOM_MIN = 32, NAME_MAX_LEN = 64, LOOK_MAX = 512, LINE_MAX = 128, LIST_MAX = 4096 };

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

/* Those that say by their beginning what they are. */
static size_t take_marked(struct str s, struct buf *out)
{
	static const struct {
		struct str head;
		size_t least; /* that follow */
	} marks[] = {
		{STR("ghp_"), 10},     {STR("gho_"), 10},	   {STR("ghs_"), 10},	     {STR("ghu_"), 10},
		{STR("ghr_"), 10},     {STR("glpat-"), 16},	   {STR("github_pat_"), 10}, {STR("AKIA"), 16},
		{STR("ASIA"), 16},     {STR("AIza"), 30},	   {STR("xoxb-"), 10},	     {STR("xoxp-"), 10},
		{STR("xoxa-"), 10},    {STR("xoxr-"), 10},	   {STR("xoxs-"), 10},	     {STR("xapp-"), 10},
		{STR("npm_"), 20},     {STR("pypi-"), 16},	   {STR("sk_live_"), 10},    {STR("sk_test_"), 10},
		{STR("rk_live_"), 10}, {STR("sk-"), 20},	   {STR("hf_"), 16},	     {STR("dckr_pat_"), 16},
		{STR("hvs."), 16},     {STR("SG."), 20},	   {STR("ya29."), 16},	     {STR("shpat_"), 16},
		{STR("dop_v1_"), 16},  {STR("LS0tLS1CRUdJTi"), 8}, /* -----BEGIN in base64 */
	};

	for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
		if (!str_starts_with(s, marks[i].head) ||
		    span(s, is_token, LOOK_MAX) < marks[i].head.len + marks[i].least)
			continue;
		buf_puts(out, "***");
		return span(s, is_token, s.len);
	}
	return 0;
}

static bool is_base64(char c)
{
	return isalnum((unsigned char)c) || (c != '\0' && strchr("+/=_-", c) != NULL);
}

static int class_of(char c)
{
	return isupper((unsigned char)c) ? 1 : islower((unsigned char)c) ? 2 : isdigit((unsigned char)c) ? 3 : 0;
}

/* Capitals, small letters and digits change too often for words or paths: a key that nobody named. Digests are not so:
 * they are hex. */
static size_t take_random(struct str s, struct buf *out)
{
	size_t len = span(s, is_base64, LOOK_MAX), changes = 0;
	int last = 0;
	unsigned seen = 0;

	for (size_t i = 0; i < len; i++) {
		int class = class_of(s.data[i]);
		changes += class != 0 && last != 0 && class != last;
		last = class != 0 ? class : last;
		seen |= 1U << class;
	}
	if (len < RANDOM_MIN || (seen & 0xe) != 0xe || changes < len / 4)
		return 0;
	buf_puts(out, "***");
	return span(s, is_base64, s.len);
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

static void take_patterns(struct str text, struct buf *out);

/* Then the user is the secret, whatever it looks like. */
static bool is_no_password(struct str password)
{
	static const char *const words[] = {"", "x", "x-oauth-basic", "x-token-auth"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (str_eq(password, str_c(words[i])))
			return true;
	return false;
}

/* "USER:" and what was behind it. The user may be a token beside a password, too. There is no ':' in it, so it holds no
 * address and no user itself. */
static void put_user(struct str both, ptrdiff_t colon, struct buf *out)
{
	struct str user = {both.data, (size_t)colon};

	if (is_no_password((struct str){both.data + colon + 1, both.len - user.len - 1}))
		buf_puts(out, user.len > 0 ? "***" : "");
	else
		take_patterns(user, out);
	buf_puts(out, ":***");
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
	struct str both = {s.data + 3, (size_t)(at - s.data) - 3};
	ptrdiff_t colon = str_find(both, ':');
	if (colon < 0)
		return 0;
	buf_append(out, s.data, 3);
	put_user(both, colon, out);
	return (size_t)(at - s.data);
}

/* --- values by their names --- */

static bool is_of_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.';
}

/* By how a name ends, without '_', '-' and '.', and without an 's' at its end; or by all of it. */
static bool names_a_secret(struct str name)
{
	static const char *const ends[] = {
		"password",   "passwd",	       "pwd",	     "passphrase", "secret",	"token",
		"apikey",     "accesskey",     "accountkey", "privatekey", "secretkey", "sharedkey",
		"credential", "authorization", "cookie",     "signature",
	};
	static const char *const wholes[] = {"pass", "auth", "sig"};
	char plain[NAME_MAX_LEN + 1];
	size_t len = 0;

	for (size_t i = 0; i < name.len && i < NAME_MAX_LEN; i++) {
		if (isalnum((unsigned char)name.data[i]))
			plain[len++] = (char)tolower((unsigned char)name.data[i]);
	}
	plain[len] = '\0';
	if (str_ends_with(name, STR("_pass")) || str_ends_with(name, STR("_PASS")))
		return true;
	for (size_t i = 0; i < ARRAY_LEN(wholes); i++)
		if (strcmp(plain, wholes[i]) == 0)
			return true;
	len -= len > 0 && plain[len - 1] == 's';
	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		if (str_ends_with((struct str){plain, len}, str_c(ends[i])))
			return true;
	return false;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The line so far, as it goes out; the end of it, where it is long. */
static struct str line_before(const struct buf *out)
{
	if (out->len == 0)
		return STR(""); /* it has no bytes to point at */
	size_t len = out->len < LOOK_MAX ? out->len : LOOK_MAX;
	struct str all = {out->data + (out->len - len), len};
	const char *feed = memrchr(all.data, '\n', all.len);

	return feed == NULL ? all : (struct str){feed + 1, (size_t)(all.data + all.len - feed - 1)};
}

/* "=", ":", "=>", blanks around them, and a quote of the name's before. Of a flag, and in a .netrc, blanks alone; of an
 * element, '>'. 0: the name has no value. */
static size_t separator(struct str s, const struct buf *out, struct str name)
{
	struct str before = line_before(out);
	bool alone =
		str_ends_with(before, STR("--")) || (str_eq(name, STR("password")) && str_ends_with(before, STR(" ")) &&
						     memmem(before.data, before.len, "login ", 6) != NULL);
	size_t at = 0;

	if (str_ends_with(before, STR("<")) && str_starts_with(s, STR(">")))
		return 1;
	at += str_starts_with(s, STR("\\"));
	at += at < s.len && (s.data[at] == '"' || s.data[at] == '\'');
	size_t blanks = span((struct str){s.data + at, s.len - at}, is_blank, LINE_MAX);
	at += blanks;
	bool sign = at < s.len && (s.data[at] == '=' || s.data[at] == ':');
	if (!sign)
		return alone ? blanks : 0;
	at++;
	at += at < s.len && s.data[at] == '>';
	return at + span((struct str){s.data + at, s.len - at}, is_blank, LINE_MAX);
}

/* With which it begins; empty: it has none. */
static struct str opening_quote(struct str value)
{
	static const struct str quotes[] = {STR("\\\""), STR("\\'"), STR("\""), STR("'")};

	for (size_t i = 0; i < ARRAY_LEN(quotes); i++)
		if (str_starts_with(value, quotes[i]))
			return quotes[i];
	return STR("");
}

/* Up to the quote that ends it, or the line. */
static size_t quoted(struct str s, struct str quote)
{
	size_t at = 0;

	while (at < s.len && s.data[at] != '\n' && !str_starts_with((struct str){s.data + at, s.len - at}, quote))
		at += s.data[at] == '\\' && at + 1 < s.len && s.data[at + 1] != '\n' ? 2 : 1;
	return at;
}

static bool is_of_value(char c)
{
	return !isspace((unsigned char)c) && c != '\0' && strchr("&;\"'<>", c) == NULL;
}

static bool is_of_line(char c)
{
	return c != '\n' && c != '\r';
}

static bool is_of_element(char c)
{
	return c != '<';
}

/* What says that there is none, or is no text. */
static bool is_plain(struct str value)
{
	static const char *const words[] = {"", "true", "false", "null", "none", "-", "[]"};

	while (value.len > 0 && strchr(",)}]", value.data[value.len - 1]) != NULL && value.data[0] != '[')
		value.len--;
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (str_eq(value, str_c(words[i])))
			return true;
	return false;
}

/* An object, whose members are looked at by themselves; or it is done already. */
static bool holds_others(struct str value)
{
	return str_starts_with(value, STR("{")) || str_starts_with(value, STR("***"));
}

/* A value that no quote holds. To the end of its line where a header has it, or where it stands alone there. */
static size_t unquoted(struct str s, struct str name, int sign, const struct buf *out)
{
	struct str before = str_trim(line_before(out));
	bool header = str_ends_with(name, STR("uthorization")) || str_ends_with(name, STR("UTHORIZATION")) ||
		      str_ends_with(name, STR("ookie"));
	bool alone = sign == ':' && (before.len == 0 || str_eq(before, STR("-")));

	if (sign == '>')
		return span(s, is_of_element, s.len);
	if (str_starts_with(s, STR("[")) && !str_starts_with(s, STR("[]"))) {
		const char *end = memchr(s.data, ']', s.len < LIST_MAX ? s.len : LIST_MAX);
		return end != NULL ? (size_t)(end - s.data) + 1 : s.len;
	}
	return span(s, header || alone ? is_of_line : is_of_value, s.len);
}

/* "Basic " of an Authorization stays. */
static size_t scheme(struct str value)
{
	static const char *const schemes[] = {"Basic ", "Bearer ", "Digest ", "Token "};

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		if (begins(value, schemes[i]))
			return strlen(schemes[i]);
	return 0;
}

/* name=VALUE, "name": "VALUE", --name VALUE, Name: VALUE, <name>VALUE. A token may end like a name; it has no value in
 * itself. */
static size_t take_named(struct str s, struct buf *out)
{
	struct str name = {s.data, span(s, is_of_name, NAME_MAX_LEN)};
	size_t gap = name.len > 0 && names_a_secret(name)
			     ? separator((struct str){s.data + name.len, s.len - name.len}, out, name)
			     : 0;
	struct str value = {s.data + name.len + gap, s.len - name.len - gap};

	if (gap == 0 || str_starts_with(value, STR("//")))
		return 0;
	bool json = s.data[name.len] == '"';
	struct str quote = opening_quote(value);
	if (quote.len > 0) {
		struct str inner = {value.data + quote.len, value.len - quote.len};
		if (holds_others(inner))
			return 0;
		inner.len = quoted(inner, quote);
		if (is_plain(inner))
			return 0;
		take_patterns(name, out);
		buf_append(out, s.data + name.len, gap + quote.len);
		buf_puts(out, "***");
		return name.len + gap + quote.len + inner.len;
	}
	if (holds_others(value))
		return 0;
	bool colon = memchr(s.data + name.len, ':', gap) != NULL;
	value.len = unquoted(value, name, colon ? ':' : s.data[name.len], out);
	if (is_plain(value))
		return 0;
	take_patterns(name, out);
	buf_append(out, s.data + name.len, gap + scheme(value));
	buf_puts(out, json ? "\"***\"" : "***");
	return name.len + gap + value.len;
}

static size_t argument(struct str s, struct str quote)
{
	return quote.len > 0 ? quoted(s, quote) : span(s, is_of_value, s.len);
}

/* curl -u USER:PASSWORD, curl -u 'USER:PASSWORD' */
static size_t take_user(struct str s, struct buf *out)
{
	struct str before = line_before(out);
	size_t head = str_starts_with(s, STR("user")) && str_ends_with(before, STR("--")) ? 4
		      : str_starts_with(s, STR("u")) && str_ends_with(before, STR(" -"))  ? 1
											  : 0;

	if (head == 0 || head >= s.len || (s.data[head] != ' ' && s.data[head] != '='))
		return 0;
	struct str value = {s.data + head + 1, s.len - head - 1};
	struct str quote = opening_quote(value);
	head += 1 + quote.len;
	value = (struct str){s.data + head, s.len - head};
	struct str first = {value.data, value.len < LOOK_MAX ? value.len : LOOK_MAX};
	ptrdiff_t colon = str_find((struct str){first.data, argument(first, quote)}, ':');
	if (colon < 0)
		return 0;
	value.len = argument(value, quote);
	buf_append(out, s.data, head);
	put_user(value, colon, out);
	return head + value.len;
}

static bool are_hex(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isxdigit((unsigned char)s[i]))
			return false;
	return true;
}

/* "\n" and "\u001b" in JSON, "%3D" in an address: letters that are no part of the word behind them. 0: none. */
static size_t escape(struct str s)
{
	if (s.len >= 3 && s.data[0] == '%' && are_hex(s.data + 1, 2))
		return 3;
	if (s.len < 2 || s.data[0] != '\\')
		return 0;
	if (s.len >= 6 && s.data[1] == 'u' && are_hex(s.data + 2, 4))
		return 6;
	return s.data[1] != '\0' && strchr("bfnrt", s.data[1]) != NULL ? 2 : 0;
}

/* What is nobody's business. Gives whether a word goes on behind it. */
static bool pass(struct str *text, struct buf *out)
{
	size_t len = escape(*text);
	bool inside = len == 0 && is_word(text->data[0]);

	len = len > 0 ? len : 1;
	buf_append(out, text->data, len);
	text->data += len;
	text->len -= len;
	return inside;
}

static void take_patterns(struct str text, struct buf *out)
{
	static size_t (*const takers[])(struct str s, struct buf * out) = {
		take_private_key, take_jwt, take_marked, take_named, take_bearer, take_user, take_password, take_random,
	};
	bool inside = false; /* of a word: what begins there is none of ours, but a JWT is one wherever it begins */

	while (text.len > 0) {
		size_t used = inside && str_starts_with(text, STR("eyJ")) ? take_jwt(text, out) : 0;
		for (size_t i = 0; i < ARRAY_LEN(takers) && used == 0 && !inside; i++)
			used = takers[i](text, out);
		text.data += used;
		text.len -= used;
		inside = used == 0 && pass(&text, out);
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
