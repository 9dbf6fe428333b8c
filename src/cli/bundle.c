/*
 * nimbus admin support-bundle: one tar file with what somebody who helps asks for first, and no secret in it.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/doctor.h"
#include "cli/redact.h"
#include "proto/endpoints.h"
#include "proto/tar.h"

enum { SECRET_FILE_MAX = 65536, LOG_MAX = 4 << 20, ANSWER_MAX = 16 << 20, LATER_MIN = 8, LOGS_MAX = 16 };
#define ASK_NS (5 * NS_PER_S)

struct bundle_options {
	struct cli_flags cli;
	struct option_texts logs;
};

struct bundle {
	struct command_call *call;
	struct session *session;
	struct masker *known;
	struct buf tar;
	struct js *files;   /* names */
	struct js *missing; /* sentences */
	int64_t made_at;
};

/* --- what must not get out --- */

static int hide(struct bundle *b, struct str value, struct err *err)
{
	int rc = value.len > 0 ? masker_add(b->known, value, err) : 0;

	return rc < 0 ? rc : 0; /* too short to be looked for, and then no secret of ours */
}

/* A list, by commas or as JSON, is hidden piece by piece. */
static int hide_list(struct bundle *b, struct str text, struct err *err)
{
	autoptr(js) list = NULL;

	int rc = hide(b, str_trim(text), err);
	if (rc == 0 && str_starts_with(str_trim(text), STR("[")) && js_parse(text, &list, NULL) == 0) {
		for (size_t i = 0; i < js_len(list) && rc == 0; i++)
			rc = hide(b, str_c(js_text(js_at(list, i), "")), err);
		return rc;
	}
	for (struct str rest = text; rest.data != NULL && rc == 0;)
		rc = hide(b, str_trim(str_cut(&rest, ',')), err);
	return rc;
}

static int hide_file(struct bundle *b, int dirfd, const char *path, struct err *err)
{
	autovar(buf) text = {0};
	struct err unreadable = {0};

	if (file_read(dirfd, path, SECRET_FILE_MAX, &text, &unreadable) < 0)
		return 0; /* who cannot read it cannot have it in a bundle */
	int rc = hide_list(b, str_trim(buf_str(&text)), err);
	for (struct str rest = buf_str(&text); rest.data != NULL && rc == 0;) /* a key has several */
		rc = hide(b, str_trim(str_cut(&rest, '\n')), err);
	explicit_bzero(text.data, text.len);
	return rc;
}

/* As an address has it, and as it is. */
static int hide_encoded(struct bundle *b, struct str value, struct err *err)
{
	autovar(buf) plain = {0};

	for (size_t i = 0; i < value.len; i++) {
		int high = value.data[i] == '%' && i + 2 < value.len ? decode_hex_digit(value.data[i + 1]) : -1;
		int low = high >= 0 ? decode_hex_digit(value.data[i + 2]) : -1;
		if (low >= 0) {
			buf_putc(&plain, (char)(high * 16 + low));
			i += 2;
		} else {
			buf_putc(&plain, value.data[i]);
		}
	}
	int rc = hide(b, value, err);
	if (rc == 0)
		rc = hide(b, buf_str(&plain), err);
	if (plain.data != NULL)
		explicit_bzero(plain.data, plain.len);
	return rc;
}

/* scheme://user:PASSWORD@host/?sslpassword=PASSWORD */
static int hide_passwords(struct bundle *b, struct str address, struct err *err)
{
	const char *sign = memmem(address.data, address.len, "://", 3);
	int rc = 0;

	if (sign == NULL)
		return 0;
	struct str options = {sign + 3, address.len - (size_t)(sign + 3 - address.data)};
	const char *at = options.len > 0 ? memrchr(options.data, '@', options.len) : NULL;
	if (at != NULL) {
		struct str password = {options.data, (size_t)(at - options.data)};
		(void)str_cut(&password, ':');
		rc = password.data != NULL ? hide_encoded(b, password, err) : 0;
	}
	(void)str_cut(&options, '?');
	while (options.data != NULL && rc == 0) {
		struct str value = str_cut(&options, '&');
		struct str name = str_cut(&value, '=');
		bool may_be =
			memmem(name.data, name.len, "pass", 4) != NULL || memmem(name.data, name.len, "key", 3) != NULL;
		rc = may_be && value.data != NULL ? hide_encoded(b, value, err) : 0;
	}
	return rc;
}

/* Names of later versions are not read yet, but what stands there may be a secret all the same. */
static int hide_setting(struct bundle *b, const struct config_key *key, struct err *err)
{
	const struct config_source *source = b->session->role.source;
	bool secret = key->type == CONFIG_SECRET || key->type == CONFIG_SECRETS;
	bool later = (key->flags & CONFIG_RESERVED) != 0;
	autofree char *file_name = xasprintf("%s_FILE", key->name);
	const char *file = config_source_get(source, file_name, NULL);
	struct str value = str_c(config_source_get(source, key->name, NULL));
	int rc = 0;

	if (secret || (later && value.len >= LATER_MIN))
		rc = hide_list(b, value, err);
	if (rc == 0 && value.len > 0)
		rc = hide_passwords(b, value, err);
	if (rc == 0 && file != NULL)
		rc = hide_file(b, AT_FDCWD, file, err);
	return rc;
}

static int hide_folder(struct bundle *b, const char *name, struct err *err)
{
	autofree char *path = xasprintf("%s/%s", b->session->role.data_dir, name);
	DIR *dir = opendir(path);
	const struct dirent *e;
	int rc = 0;

	while (dir != NULL && rc == 0 && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] != '.')
			rc = hide_file(b, dirfd(dir), e->d_name, err);
	}
	if (dir != NULL)
		(void)closedir(dir);
	return rc;
}

static int hide_all(struct bundle *b, struct err *err)
{
	const struct cli_flags *flags = b->call->options;
	int rc = hide(b, str_c(flags->token), err);

	for (size_t t = 0; t < settings_table_count && rc == 0; t++) {
		for (size_t k = 0; k < settings_tables[t]->count && rc == 0; k++)
			rc = hide_setting(b, &settings_tables[t]->keys[k], err);
	}
	if (rc == 0)
		rc = hide_folder(b, "secrets", err);
	return rc < 0 ? rc : hide_folder(b, "keys", err);
}

/* --- what is in it --- */

static int add(struct bundle *b, const char *name, struct str text, struct err *err)
{
	static const char zeros[TAR_BLOCK];
	autofree char *path = xasprintf("nimbus-support/%s", name);
	autovar(buf) clean = {0};

	redact(b->known, text, &clean);
	const struct tar_entry entry = {
		.kind = TAR_FILE,
		.path = path,
		.target = "",
		.mode = 0600,
		.mtime_ns = b->made_at,
		.size = clean.len,
	};
	int rc = tar_entry_encode(&entry, &b->tar, err);
	if (rc < 0)
		return rc;
	buf_append_str(&b->tar, buf_str(&clean));
	buf_append(&b->tar, zeros, tar_padding(clean.len));
	js_push(b->files, js_new_text(name));
	return 0;
}

static int add_js(struct bundle *b, const char *name, const struct js *v, struct err *err)
{
	autovar(buf) text = {0};

	js_write_pretty(v, &text);
	buf_putc(&text, '\n');
	return add(b, name, buf_str(&text), err);
}

static void miss(struct bundle *b, const char *name, const char *why)
{
	autofree char *sentence = xasprintf("%s: %s", name, why);

	js_push(b->missing, js_new_text(sentence));
}

static int add_doctor(struct bundle *b, struct err *err)
{
	autoptr(js) checks = NULL;

	int rc = doctor_examine(b->call, &(struct doctor_opts){0}, &checks, err);
	return rc < 0 ? rc : add_js(b, "doctor.json", checks, err);
}

static int add_config(struct bundle *b, struct err *err)
{
	autoptr(js) items = config_as_js(b->session->role.source);

	return add_js(b, "config.json", items, err);
}

/* An answer of a server, as it comes. */
static int add_answer(struct bundle *b, const char *name, const char *base, const char *path,
		      const struct secret *token, struct err *err)
{
	autofree char *url = http_url(base, path);
	autovar(http_reply) reply = {0};
	struct err why = {0};

	int rc = http_client_do(
		b->session->client,
		&(struct http_call){.url = url, .token = token, .timeout_ns = ASK_NS, .max_reply = ANSWER_MAX}, &reply,
		&why);
	if (rc < 0 && reply.body.len == 0) {
		miss(b, name, why.msg);
		return 0;
	}
	return add(b, name, buf_str(&reply.body), err);
}

static int add_server(struct bundle *b, const char *what, const char *base, const struct secret *metrics,
		      struct err *err)
{
	autofree char *ready = xasprintf("%s-readyz.json", what);
	autofree char *figures = xasprintf("%s-metrics.txt", what);

	int rc = add_answer(b, ready, base, "/readyz?verbose", NULL, err);
	return rc < 0 ? rc : add_answer(b, figures, base, "/metrics", metrics, err);
}

static int read_endpoints(struct bundle *b, struct endpoints *ret, struct err *err)
{
	autofree char *path = xasprintf("%s/" ENDPOINTS_FILE, b->session->role.data_dir);
	autovar(buf) text = {0};

	int rc = file_read(AT_FDCWD, path, SECRET_FILE_MAX, &text, err);
	return rc < 0 ? rc : endpoints_decode(buf_str(&text), b->call->arena, ret, err);
}

static int add_servers(struct bundle *b, struct err *err)
{
	const struct config_source *source = b->session->role.source;
	struct control_settings control = {0};
	struct logging_settings logging = {0};
	const struct secret *token = NULL;
	const char *base = NULL;
	struct endpoints here = {0};
	struct err why = {0};

	int rc = config_load(source, &control_config, &control, err);
	if (rc == 0)
		rc = config_load(source, &logging_config, &logging, err);
	if (rc == 0 && session_control_url(b->session, &base, &why) == 0) {
		rc = add_server(b, "control-plane", base, control.metrics_token, err);
		if (rc == 0 && session_token(b->session, &token, &why) == 0)
			rc = add_answer(b, "status.json", base, "/api/status", token, err);
	} else if (rc == 0) {
		miss(b, "control plane", why.msg);
	}
	if (rc == 0 && session_logs_url(b->session, &base, &why) == 0)
		rc = add_server(b, "logging-pipeline", base, logging.metrics_token, err);
	if (rc == 0 && read_endpoints(b, &here, &why) == 0)
		rc = add_answer(b, "host-agent-metrics.txt", here.agent_metrics, "/metrics", NULL, err);
	config_unload(&control_config, &control);
	config_unload(&logging_config, &logging);
	return rc;
}

/* The end of each: that is where it went wrong. */
static int add_log(struct bundle *b, const char *path, size_t number, struct err *err)
{
	const char *slash = strrchr(path, '/');
	autofree char *name = xasprintf("logs/%zu-%s", number, slash != NULL ? slash + 1 : path);
	autoclose fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	autovar(buf) text = {0};
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(err, "--log %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INVALID, "--log %s: is not an ordinary file", path);
	off_t start = st.st_size > LOG_MAX ? st.st_size - LOG_MAX : 0;
	size_t room = (size_t)(st.st_size - start);
	ssize_t got = room > 0 ? pread(fd, buf_reserve(&text, room), room, start) : 0;
	if (got < 0)
		return err_sys(err, "--log %s", path);
	text.len += (size_t)got;
	struct str whole = buf_str(&text);
	if (start > 0) /* a secret may be cut at the front, and then nobody knows it */
		(void)str_cut(&whole, '\n');
	return whole.data != NULL ? add(b, name, whole, err) : 0;
}

static int add_about(struct bundle *b, struct err *err)
{
	autoptr(js) v = js_new_object();
	autovar(buf) release = {0};
	struct utsname host;
	struct err ignored = {0};

	js_set_time(v, "made_at", b->made_at);
	js_set(v, "version", js_new_text(NIMBUS_VERSION));
	js_set(v, "commit", js_new_text(nimbus_commit));
	js_set(v, "compiler", js_new_text(__VERSION__));
	js_set(v, "data_dir", js_new_text(b->session->role.data_dir));
	js_set(v, "uid", js_new_int(geteuid()));
	if (uname(&host) == 0) {
		js_set(v, "kernel", js_new_text(host.release));
		js_set(v, "machine", js_new_text(host.machine));
	}
	if (file_read(AT_FDCWD, "/etc/os-release", SECRET_FILE_MAX, &release, &ignored) == 0)
		js_set(v, "os_release", js_new_str(str_trim(buf_str(&release))));
	js_set(v, "missing", js_copy(b->missing));
	return add_js(b, "about.json", v, err);
}

static int collect(struct bundle *b, const struct bundle_options *o, struct err *err)
{
	int rc = hide_all(b, err);

	if (rc == 0)
		rc = add_config(b, err);
	if (rc == 0)
		rc = add_doctor(b, err);
	if (rc == 0)
		rc = add_servers(b, err);
	for (size_t i = 0; i < o->logs.count && rc == 0; i++)
		rc = add_log(b, o->logs.items[i], i + 1, err);
	if (rc == 0)
		rc = add_about(b, err);
	tar_end_encode(&b->tar);
	return rc;
}

/* --- the whole --- */

static const char *default_name(struct bundle *b)
{
	time_t seconds = (time_t)(b->made_at / NS_PER_S);
	struct tm at = {0};

	(void)gmtime_r(&seconds, &at);
	return arena_printf(b->call->arena, "nimbus-support-%04d%02d%02d-%02d%02d%02d.tar", at.tm_year + 1900,
			    at.tm_mon + 1, at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec);
}

static int tell(const struct bundle *b, const char *path, struct err *err)
{
	const struct bundle_options *o = b->call->options;
	autoptr(js) v = js_new_object();
	autovar(buf) out = {0};

	if (o->cli.output.json == NULL) {
		buf_printf(&out, "%s\n", path);
		(void)fprintf(stderr,
			      "%zu files, without the secrets that are known here; look through it before you send "
			      "it: tar -xOf %s | less\n",
			      js_len(b->files), path);
		return print_text(&out, err);
	}
	js_set(v, "path", js_new_text(path));
	js_set(v, "files", js_copy(b->files));
	js_set(v, "missing", js_copy(b->missing));
	return print_json(&o->cli.output, v, err);
}

static int run(struct command_call *call, struct err *err)
{
	const struct bundle_options *o = call->options;
	autoptr(masker) known = masker_new();
	autoptr(js) files = js_new_array();
	autoptr(js) missing = js_new_array();
	autovar(session) s = {0};
	struct bundle b = {
		.call = call,
		.session = &s,
		.known = known,
		.files = files,
		.missing = missing,
		.made_at = clock_unix_ns(),
	};

	if (o->logs.count > LOGS_MAX)
		return err_set(err, ERR_INVALID, "--log: at most %d files", LOGS_MAX);
	int rc = session_open(call, &s, err);
	if (rc == 0)
		rc = collect(&b, o, err);
	const char *path = call->arg_count > 0 ? call->args[0] : default_name(&b);
	if (rc == 0)
		rc = file_write_new(AT_FDCWD, path, buf_str(&b.tar), 0600, err);
	if (rc == 0)
		rc = tell(&b, path, err);
	buf_fini(&b.tar);
	return rc;
}

static const struct command_option options[] = {
	{"log", 'l', OPTION_TEXTS, offsetof(struct bundle_options, logs), .value = "FILE",
	 .help = "The end of this log too; may be given again."},
};

const struct command support_bundle_command = {
	.path = "admin support-bundle",
	.args = "[FILE]",
	.summary = "Pack what somebody who helps asks for, without secrets",
	.about = "A tar file with the settings and where they come from, what doctor finds, versions, status, metrics, "
		 "and the\n"
		 "ends of the logs that are named. Secrets that are known here (variables, their files, DATA/secrets, "
		 "DATA/keys)\n"
		 "and what looks like a token, a key or a password become '***'. Look through it all the "
		 "same.\n",
	.examples = "  nimbus admin support-bundle\n"
		    "  nimbus admin support-bundle --log /var/log/nimbus.log bundle.tar\n"
		    "  journalctl -u 'nimbus*' -n 5000 > n.log; nimbus admin support-bundle --log n.log\n",
	.options = options,
	.option_count = ARRAY_LEN(options),
	.shared = cli_options,
	.shared_count = CLI_OPTION_COUNT,
	.options_size = sizeof(struct bundle_options),
	.max_args = 1,
	.run = run,
};
