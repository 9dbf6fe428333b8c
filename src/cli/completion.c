/*
 * nimbus completion: what makes a shell ask us when somebody presses Tab; and the hidden command that it asks, so that
 * the scripts know nothing that could become old.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/complete.h"
#include "base/mem.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "model/job_state.h"

/* A person waits at the prompt: what is not known by then is not offered. */
enum { LIMIT_MS = 300, JOBS_MAX = 50 };

/* --- what the table does not know --- */

static int ask(struct session *s, const char *path, struct js **ret, struct err *err)
{
	const struct secret *token = NULL;
	const char *base = NULL;

	int rc = session_control_url(s, &base, err);
	if (rc == 0)
		rc = session_token(s, &token, err);
	if (rc < 0)
		return rc;
	autofree char *url = http_url(base, path);
	return session_ask_url(s, &(struct http_call){.url = url, .token = token, .timeout_ns = LIMIT_MS * NS_PER_MS},
			       ret, err);
}

static void offer_jobs(struct session *s, struct completion *to, struct err *err)
{
	autofree char *path = xasprintf("/api/jobs/recent?limit=%d", JOBS_MAX);
	autoptr(js) jobs = NULL;

	if (ask(s, path, &jobs, err) < 0)
		return;
	for (size_t i = 0; i < js_len(jobs); i++) {
		const struct js *job = js_at(jobs, i);
		const char *name = js_text(js_get(job, "name"), js_text(js_get(job, "repo_full_name"), ""));
		autofree char *id = xasprintf("%" PRId64, js_int(js_get(job, "id"), 0));
		autofree char *about = xasprintf("%s %s", js_text(js_get(job, "state"), ""), name);
		complete_offer(to, id, about);
	}
}

static void offer_agents(struct session *s, struct completion *to, struct err *err)
{
	autoptr(js) agents = NULL;

	if (ask(s, "/api/agents", &agents, err) < 0)
		return;
	for (size_t i = 0; i < js_len(agents); i++) {
		const struct js *agent = js_at(agents, i);
		complete_offer(to, js_text(js_get(agent, "agent_id"), ""),
			       js_text(js_get(agent, "agent_version"), NULL));
	}
}

static void offer_images(struct session *s, struct completion *to, struct err *err)
{
	autofree char *path = xasprintf("%s/assets", s->role.data_dir);
	DIR *dir = opendir(path);

	(void)err;
	for (struct dirent *e = dir != NULL ? readdir(dir) : NULL; e != NULL; e = readdir(dir)) {
		struct str name = str_c(e->d_name);
		if (!str_ends_with(name, STR(".squashfs")))
			continue;
		autofree char *image = xmemdup0(name.data, name.len - (sizeof(".squashfs") - 1));
		complete_offer(to, image, NULL);
	}
	if (dir != NULL)
		closedir(dir);
}

static void offer_states(struct completion *to)
{
	for (enum job_state s = 0; s < JOB_STATE_COUNT; s++)
		complete_offer(to, job_state_text(s), NULL);
}

static void offer_roles(struct completion *to)
{
	for (size_t i = 0; i < settings_table_count; i++) {
		if (settings_tables[i]->role[0] != '\0')
			complete_offer(to, settings_tables[i]->role, NULL);
	}
}

/* Some leave the first of the rows out. */
static bool speaks_to_server(const struct command *c)
{
	return c != NULL && c->shared >= cli_options && c->shared < cli_options + CLI_OPTION_COUNT;
}

/* By the line's own flags, where its command speaks to a server at all. */
static void offer_known(struct command_call *line, struct completion *to)
{
	static const struct {
		const char *placeholder;
		void (*offer)(struct session *s, struct completion *to, struct err *err);
	} sources[] = {
		{"ID", offer_jobs},
		{"JOB", offer_jobs},
		{"AGENT", offer_agents},
		{"IMAGE", offer_images},
	};
	autovar(session) s = {0};
	struct err err = {0};

	for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
		if (strcmp(sources[i].placeholder, to->placeholder) != 0)
			continue;
		if (speaks_to_server(line->command) && session_open(line, &s, &err) == 0)
			sources[i].offer(&s, to, &err);
		return;
	}
	if (strcmp(to->placeholder, "STATE") == 0)
		offer_states(to);
	else if (strcmp(to->placeholder, "ROLE") == 0)
		offer_roles(to);
}

/* --- the hidden command --- */

static void give_up(int number)
{
	(void)number;
	_exit(0);
}

/* Whatever happens: an end within the limit, and not a word on the terminal. */
static void be_brief_and_quiet(void)
{
	const struct itimerval limit = {.it_value = {.tv_usec = (suseconds_t)LIMIT_MS * 1000}};
	const struct sigaction on_alarm = {.sa_handler = give_up};
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (null >= 0)
		(void)dup2(null, STDERR_FILENO);
	(void)sigaction(SIGALRM, &on_alarm, NULL);
	(void)setitimer(ITIMER_REAL, &limit, NULL);
}

/* Control bytes would end the line, or steer the terminal. */
static void put_plain(const char *text, struct buf *out)
{
	for (; *text != '\0'; text++) {
		bool control = (unsigned char)*text < ' ' || *text == 0x7f;
		buf_puts(out, control ? " " : "");
		if (!control)
			buf_putc(out, *text);
	}
}

static void put_items(const struct completion *c, struct buf *out)
{
	for (size_t i = 0; i < c->count; i++) {
		put_plain(c->items[i].value, out);
		if (c->items[i].about != NULL) {
			buf_putc(out, '\t');
			put_plain(c->items[i].about, out);
		}
		buf_putc(out, '\n');
	}
}

/* What a shell finds better than we do. */
static const char *directive(const char *placeholder)
{
	static const char *const files[] = {"FILE", "PATH"};
	static const char *const folders[] = {"DIR", "FOLDER"};

	for (size_t i = 0; placeholder != NULL && i < ARRAY_LEN(files); i++) {
		if (strcmp(placeholder, files[i]) == 0)
			return ":files\n";
		if (strcmp(placeholder, folders[i]) == 0)
			return ":folders\n";
	}
	return "";
}

static int run_complete(struct command_call *call, struct err *err)
{
	struct completion c;
	struct command_call line = {0};
	autovar(buf) help = {0};
	autovar(buf) out = {0};
	char **argv = arena_calloc(call->arena, call->arg_count + 2, sizeof(*argv));

	be_brief_and_quiet();
	complete(call->program, call->args, call->arg_count, call->arena, &c);
	if (c.placeholder != NULL) {
		argv[0] = arena_strdup(call->arena, call->program->name);
		for (size_t i = 0; i + 1 < call->arg_count; i++)
			argv[1 + i] = arena_strdup(call->arena, call->args[i]);
		int argc = (int)call->arg_count - (call->arg_count > 0 ? 0 : -1);
		/* It is not whole yet; the flags that stand there are all that we want. */
		(void)!command_parse(call->program, argc, argv, call->arena, &line, &help, err);
		offer_known(&line, &c);
	}
	put_items(&c, &out);
	buf_puts(&out, directive(c.placeholder));
	(void)!print_text(&out, err);
	return 0;
}

const struct command complete_command = {
	.path = "__complete",
	.args = "-- WORDS",
	.summary = "What may stand where the last word is",
	.hidden = true,
	.max_args = SIZE_MAX,
	.run = run_complete,
};

/* --- the scripts --- */

/* bash takes words apart at '=', and replaces only what stands behind it. */
static const char bash_script[] = "# bash completion for nimbus. In ~/.bashrc: source <(nimbus completion bash)\n"
				  "_nimbus()\n"
				  "{\n"
				  "\tlocal words=() joined= word line head i\n"
				  "\tfor ((i = 1; i <= COMP_CWORD; i++)); do\n"
				  "\t\tword=${COMP_WORDS[i]}\n"
				  "\t\tif [[ ${#words[@]} -gt 0 && ( $word == '=' || -n $joined ) ]]; then\n"
				  "\t\t\twords[${#words[@]}-1]+=$word\n"
				  "\t\t\tjoined=\n"
				  "\t\t\t[[ $word == '=' ]] && joined=1\n"
				  "\t\telse\n"
				  "\t\t\twords+=(\"$word\")\n"
				  "\t\tfi\n"
				  "\tdone\n"
				  "\tword=${words[${#words[@]}-1]}\n"
				  "\thead=\n"
				  "\t[[ $word == --*=* ]] && head=${word%%=*}=\n"
				  "\tCOMPREPLY=()\n"
				  "\twhile IFS= read -r line; do\n"
				  "\t\tcase $line in\n"
				  "\t\t:files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f "
				  "-- \"${word#\"$head\"}\") ;;\n"
				  "\t\t:folders) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d "
				  "-- \"${word#\"$head\"}\") ;;\n"
				  "\t\t*) line=${line%%$'\\t'*}; COMPREPLY+=(\"${line#\"$head\"}\") ;;\n"
				  "\t\tesac\n"
				  "\tdone < <(\"${1/#\\~/$HOME}\" __complete -- \"${words[@]}\" 2>/dev/null)\n"
				  "}\n"
				  "complete -o nosort -F _nimbus nimbus nimbus-cli\n";

static const char zsh_script[] =
	"#compdef nimbus nimbus-cli\n"
	"# zsh completion for nimbus. In ~/.zshrc, after compinit: source <(nimbus completion zsh)\n"
	"_nimbus()\n"
	"{\n"
	"\tlocal line value about\n"
	"\tlocal -a items\n"
	"\tfor line in \"${(@f)$(${~words[1]} __complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
	"\t\tcase $line in\n"
	"\t\t'') ;;\n"
	"\t\t:files) compset -P '*='; _files ;;\n"
	"\t\t:folders) compset -P '*='; _files -/ ;;\n"
	"\t\t*)\n"
	"\t\t\tvalue=${line%%$'\\t'*}\n"
	"\t\t\tabout=${line#*$'\\t'}\n"
	"\t\t\tif [[ $value == $line ]]; then\n"
	"\t\t\t\titems+=(\"${value//:/\\\\:}\")\n"
	"\t\t\telse\n"
	"\t\t\t\titems+=(\"${value//:/\\\\:}:$about\")\n"
	"\t\t\tfi ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\t(( ${#items} )) && _describe -V nimbus items\n"
	"}\n"
	"if [[ ${funcstack[1]} == _nimbus ]]; then\n"
	"\t_nimbus \"$@\"\n"
	"else\n"
	"\tcompdef _nimbus nimbus nimbus-cli\n"
	"fi\n";

static const char fish_script[] =
	"# fish completion for nimbus: nimbus completion fish > ~/.config/fish/completions/nimbus.fish\n"
	"function __nimbus_complete\n"
	"\tset -l words (commandline -opc)\n"
	"\tset -l current (commandline -ct)\n"
	"\tset -l program $words[1]\n"
	"\tset -e words[1]\n"
	"\tfor line in ($program __complete -- $words \"$current\" 2>/dev/null)\n"
	"\t\tswitch $line\n"
	"\t\t\tcase ':files'\n"
	"\t\t\t\t__fish_complete_path (string replace -r '^--[^=]*=' '' -- \"$current\")\n"
	"\t\t\tcase ':folders'\n"
	"\t\t\t\t__fish_complete_directories (string replace -r '^--[^=]*=' '' -- \"$current\")\n"
	"\t\t\tcase '*'\n"
	"\t\t\t\techo $line\n"
	"\t\tend\n"
	"\tend\n"
	"end\n"
	"complete -c nimbus -f -k -a '(__nimbus_complete)'\n"
	"complete -c nimbus-cli -f -k -a '(__nimbus_complete)'\n";

static int run_completion(struct command_call *call, struct err *err)
{
	static const struct {
		const char *shell;
		const char *script;
	} scripts[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};
	autovar(buf) out = {0};

	for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
		if (strcmp(scripts[i].shell, call->args[0]) == 0) {
			buf_puts(&out, scripts[i].script);
			return print_text(&out, err);
		}
	}
	return err_set(err, ERR_INVALID, "'%s' is none of bash, zsh, fish", call->args[0]);
}

const struct command completion_command = {
	.path = "completion",
	.args = "bash|zsh|fish",
	.summary = "Print what makes a shell complete our commands",
	.about = "Commands, flags and their words, the fields of --json=, and the ids of jobs and agents and the names "
		 "of\n"
		 "images, where they are known within 300 ms. What cannot be reached is not offered; no message comes "
		 "in between.\n",
	.examples = "  source <(nimbus completion bash)\n"
		    "  nimbus completion zsh > ~/.zfunc/_nimbus\n"
		    "  nimbus completion fish > ~/.config/fish/completions/nimbus.fish\n",
	.min_args = 1,
	.max_args = 1,
	.run = run_completion,
};
