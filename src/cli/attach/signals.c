#include "cli/attach/signals.h"

#include <signal.h>

#include "base/mem.h"

/* --- what they mean --- */

static unsigned interrupt(struct signals_scene *scene)
{
	unsigned level = scene->interrupts++ + (scene->started ? 0 : 1);

	if (level == 0)
		return SIGNALS_SEND;
	return level == 1 && scene->own_job ? SIGNALS_CANCEL : SIGNALS_LEAVE;
}

/* The terminal is gone. A process that has one learns it from the server; another one from us. */
static unsigned hang_up(struct signals_scene *scene)
{
	return SIGNALS_LEAVE | (scene->started && !scene->tty ? SIGNALS_SEND : 0U);
}

static unsigned pass_on(struct signals_scene *scene)
{
	(void)scene;
	return SIGNALS_SEND;
}

static unsigned resize(struct signals_scene *scene)
{
	return scene->started && scene->tty ? SIGNALS_SEND_SIZE : 0;
}

/* The shell had the terminal meanwhile. */
static unsigned go_on(struct signals_scene *scene)
{
	return scene->started && scene->tty ? SIGNALS_TAKE_TERMINAL | SIGNALS_SEND_SIZE : 0;
}

static const struct {
	int number;
	unsigned (*meaning)(struct signals_scene *scene);
} all[] = {
	{SIGINT, interrupt}, {SIGTERM, interrupt}, {SIGQUIT, interrupt}, {SIGHUP, hang_up},
	{SIGUSR1, pass_on},  {SIGUSR2, pass_on},   {SIGWINCH, resize},	 {SIGCONT, go_on},
};

unsigned signals_meaning(int number, struct signals_scene *scene)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i].number == number)
			return all[i].meaning(scene);
	return 0;
}

/* --- getting them --- */

struct one {
	struct signals *signals;
	int number;
	struct loop_source *source;
};

struct signals {
	signals_fn *fn;
	void *ctx;
	struct one each[ARRAY_LEN(all)];
};

static void on_signal(void *ctx)
{
	const struct one *o = ctx;

	o->signals->fn(o->signals->ctx, o->number);
}

int signals_new(struct loop *loop, signals_fn *fn, void *ctx, struct signals **ret, struct err *err)
{
	autoptr(signals) s = xcalloc(1, sizeof(*s));
	int rc = 0;

	s->fn = fn;
	s->ctx = ctx;
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGTTOU, SIG_IGN); /* the terminal is restored from the background too */
	for (size_t i = 0; i < ARRAY_LEN(all) && rc == 0; i++) {
		s->each[i].signals = s;
		s->each[i].number = all[i].number;
		rc = loop_add_signal(loop, all[i].number, on_signal, &s->each[i], &s->each[i].source, err);
	}
	if (rc < 0)
		return rc;
	*ret = TAKE(s);
	return 0;
}

void signals_free(struct signals *s)
{
	sigset_t every;

	if (s == NULL)
		return;
	for (size_t i = 0; i < ARRAY_LEN(s->each); i++)
		loop_source_free(s->each[i].source);
	free(s);
	(void)sigfillset(&every);
	(void)pthread_sigmask(SIG_UNBLOCK, &every, NULL);
}
