#include "cli/redact.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void what_is_known_or_looks_like_a_secret_goes(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *wanted;
	} cases[] = {
		{"plain text: 7 = 7", "plain text: 7 = 7"},
		{"a hunter2hunter2 b", "a *** b"},
		{"aHVudGVyMmh1bnRlcjI=", "***"}, /* the same in base64 */
		{"token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln, next", "token ***, next"},
		/* Behind letters, and behind what is written with letters and is none. */
		{"texteyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln, next", "text***, next"},
		{"to%3DeyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "to%3D***"},
		{"to%3Dghp_0123456789abcdef", "to%3D***"},
		{"\"a\\nghp_0123456789abcdef\"", "\"a\\n***\""},
		{"\"\\u001bghp_0123456789abcdef\"", "\"\\u001b***\""},
		{"100%ghp_0123456789abcdef", "100%***"},
		{"eyJust a word. No more", "eyJust a word. No more"},
		{"Authorization: Bearer abc.def-ghi\r\n", "Authorization: Bearer ***\r\n"},
		{"bearer ", "bearer "},
		{"x=ghp_0123456789abcdef;", "x=***;"},
		{"notghp_0123456789abcdef", "notghp_0123456789abcdef"},
		{"ghp_short", "ghp_short"},
		{"to postgresql://nimbus:pass/w@rd@db:5432/nimbus now",
		 "to postgresql://nimbus:***@db:5432/nimbus now"},
		{"http://host:8000/a@b", "http://host:***@b"}, /* better too much than too little */
		{"http://host:8000/a", "http://host:8000/a"},
		{"http://me@host/", "http://me@host/"},
		/* A token may stand where a name does, and where a user does. */
		{"-eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln-secret=x", "-***=***"},
		{"a-ghp_0123456789abcdef-token: \"x\"", "a-***: \"***\""},
		{"https://ghp_0123456789abcdef:x-oauth-basic@github.com/a", "https://***:***@github.com/a"},
		{"https://eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln:@host", "https://***:***@host"},
		{"https://git-hunter2hunter2:pass@host", "https://git-***:***@host"},
		/* A user without a password is one, whatever it looks like. */
		{"https://0123456789abcdef0123456789abcdef01234567:x-oauth-basic@github.com/a",
		 "https://***:***@github.com/a"},
		{"https://key-in-small-letters:@host/", "https://***:***@host/"},
		{"https://0123456789abcdef:x-token-auth@host/", "https://***:***@host/"},
		{"curl -u 0123456789abcdef0123456789abcdef: https://host", "curl -u ***:*** https://host"},
		{"curl -u '0123456789abcdef:x' https://host", "curl -u '***:***' https://host"},
		{"redis://:@host", "redis://:***@host"},
		{"curl -u ghp_0123456789abcdef: https://host", "curl -u ***:*** https://host"},
		{"curl --user=ghp_0123456789abcdef:x https://host", "curl --user=***:*** https://host"},
		{"curl -u 'me:a b' https://host", "curl -u 'me:***' https://host"},
		{"curl --user \"me:a b\" https://host", "curl --user \"me:***\" https://host"},
		{"ps -u 'me' -o pid: x", "ps -u 'me' -o pid: x"},
		{"k -----BEGIN PRIVATE KEY-----\nMC4C\nAQAw\n-----END PRIVATE KEY----- l", "k *** l"},
		{"k -----BEGIN EC PRIVATE KEY-----\nMC4C", "k ***"},
		{"-----BEGIN CERTIFICATE-----\nMC4C\n", "-----BEGIN CERTIFICATE-----\nMC4C\n"},
		{"", ""},
	};
	autoptr(masker) known = masker_new();

	assert_int_equal(masker_add(known, STR("hunter2hunter2"), NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) out = {0};
		redact(known, str_c(cases[i].text), &out);
		if (strcmp(out.len > 0 ? out.data : "", cases[i].wanted) != 0)
			fail_msg("'%s': '%s'", cases[i].text, out.len > 0 ? out.data : "");
	}
}

/* What people have lines of in their logs. HUSH stands where nothing of the line may be left. */
static void no_shape_of_a_secret_gets_through(void **state)
{
	(void)state;
	static const char *const lines[] = {
		"Authorization: Basic dXNlcjpIVVNI HUSH",
		"authorization: token HUSH",
		"Proxy-Authorization: Digest username=\"a\", response=\"HUSH\"",
		"Cookie: session=HUSH; other=HUSH",
		"Set-Cookie: sid=HUSH; HttpOnly",
		"X-Api-Key: HUSH",
		"PRIVATE-TOKEN: HUSH",
		"X-Vault-Token: HUSH",
		"-H 'Authorization: Basic HUSH' https://a/",
		"password=HUSH",
		"PGPASSWORD=HUSH psql -h db",
		"export AWS_SECRET_ACCESS_KEY=HUSH",
		"export DB_PASS='HUSH HUSH'",
		"host=db user=me password=HUSH dbname=x",
		"host=db password='HUSH \\'HUSH' dbname=x",
		"Server=db;User Id=me;Password=HUSH;Database=x",
		"Server=db;Pwd=HUSH;",
		"AccountName=a;AccountKey=HUSH/abc==;EndpointSuffix=x",
		"  password: HUSH",
		"  password: \"HUSH HUSH\"",
		"  password: 'HUSH HUSH'",
		"client_secret: HUSH",
		"{\"password\":\"HUSH\"}",
		"{\"api_key\": \"HUSH\", \"b\": 1}",
		"{\"clientSecret\" : \"HUSH \\\" HUSH\"}",
		"{\"text\": \"{\\\"token\\\": \\\"HUSH\\\"}\"}",
		"{'refresh_token': 'HUSH'}",
		"{\"auths\":{\"r.io\":{\"auth\":\"HUSH\"}}}",
		"//registry/:_authToken=HUSH",
		"_auth=HUSH",
		"machine a login me password HUSH",
		"mysql --user=me --password=HUSH x",
		"tool --token HUSH run",
		"tool --api-key HUSH",
		"curl -u me:HUSH https://a/",
		"curl --user me:HUSH https://a/",
		"curl -u 'me:HUSH HUSH' https://a/",
		"curl --user \"me:HUSH HUSH\" https://a/",
		"curl --user='me:HUSH' https://a/",
		"{\"run\": \"curl -u \\\"me:HUSH HUSH\\\" https://a/\"}",
		"https://a/?access_token=HUSH&b=1",
		"https://a/cb?code=1&client_secret=HUSH",
		"https://bucket/x?X-Amz-Signature=HUSH&b=1",
		"https://store/x?sv=1&sig=HUSH",
		"amqp://me:HUSH@mq:5672/",
		"redis://:HUSH@cache:6379/0",
		"password => HUSH",
		"Passphrase: HUSH",
		"<password>HUSH</password>",
		"key AKIAHUSHHUSHHUSHHUSH",
		"xoxb-1234567890-HUSHHUSHHUSH",
		"glpat-HUSHHUSHHUSHHUSHHUSH",
		"npm_HUSHHUSHHUSHHUSHHUSHHUSHHUSHHUSH",
		"sk_live_HUSHHUSHHUSHHUSH",
		"AIzaHUSHHUSHHUSHHUSHHUSHHUSHHUSHHUSH",
		"hf_HUSHHUSHHUSHHUSHHUSH",
		"dckr_pat_HUSHHUSHHUSHHUSHHUSH",
		"pypi-AgEIHUSHHUSHHUSHHUSH",
		"hvs.HUSHHUSHHUSHHUSHHUSH",
		"LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tHUSH",
		"gitleaks wJalrXUtnFEMI/K7MDENG/bPxRfiCYHUSHHUSH09",
		"-----BEGIN RSA PRIVATE KEY-----\\nHUSH\\n-----END RSA PRIVATE KEY-----",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nHUSH\n-----END OPENSSH PRIVATE KEY-----",
	};
	autoptr(masker) known = masker_new();

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		autovar(buf) out = {0};
		redact(known, str_c(lines[i]), &out);
		assert_non_null(out.data);
		if (strstr(out.data, "HUSH") != NULL)
			print_error("'%s': '%s'\n", lines[i], out.data);
	}
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		autovar(buf) out = {0};
		redact(known, str_c(lines[i]), &out);
		assert_null(strstr(out.data, "HUSH"));
	}
}

/* What helps and is no secret stays. */
static void what_is_none_stays(void **state)
{
	(void)state;
	static const char *const lines[] = {
		"{\"name\": \"NIMBUS_JWT_SECRET_FILE\", \"value\": \"/etc/nimbus/jwt\"}",
		"{\"type\": \"secret\", \"secret\": true, \"token\": null}",
		"sha256 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		"request id 0b7e3c52-1f0c-4d59-9b31-4e2f2c6a8d10",
		"nimbus_tokens_refused_total 5",
		"image 'demo' is not what it says: /srv/Images/2026/demo-V2.squashfs",
		"the password is not set; see docs/tokens.md",
		"key: kid-7",
		"http://127.0.0.1:8000/api/jobs?state=queued&limit=5",
		"a: b = c",
	};
	autoptr(masker) known = masker_new();

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		autovar(buf) out = {0};
		redact(known, str_c(lines[i]), &out);
		assert_string_equal(out.data, lines[i]);
	}
}

/* One line of a MiB takes no longer than many: were it looked at from its beginning for each word, this would
 * take minutes. */
static void a_line_may_be_as_long_as_it_likes(void **state)
{
	(void)state;
	static const char *const words[] = {"user ",	 "password ",	"token=",   "-u a ",
					    "-u 'a ",	 "\"secret\" ", "cookie={", "token=[",
					    "token:{\"", "-----BEGIN ", "://a"};
	autoptr(masker) known = masker_new();

	for (size_t w = 0; w < ARRAY_LEN(words); w++) {
		autovar(buf) text = {0};
		autovar(buf) out = {0};
		while (text.len < 1 << 20)
			buf_puts(&text, words[w]);
		redact(known, buf_str(&text), &out);
		assert_true(out.len > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_known_or_looks_like_a_secret_goes),
		cmocka_unit_test(no_shape_of_a_secret_gets_through),
		cmocka_unit_test(what_is_none_stays),
		cmocka_unit_test(a_line_may_be_as_long_as_it_likes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
