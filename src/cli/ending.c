#include "cli/ending.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/terminal.h"

enum { SIGNALLED = 128 };

static bool ended_for(const struct attach_end *end, const char *reason)
{
	return strcmp(end->reason, reason) == 0;
}

int ending_status(const struct attach_end *end)
{
	if (end->left != 0)
		return SIGNALLED + end->left;
	if (ended_for(end, "timeout"))
		return EXIT_TIMED_OUT;
	if (ended_for(end, "cancelled"))
		return end->cancelled ? SIGNALLED + SIGINT : EXIT_OURS;
	if (end->signal > 0 && end->signal < SIGNALLED)
		return SIGNALLED + (int)end->signal;
	if (end->code == 0 && end->incomplete)
		return EXIT_OURS;
	return end->code >= 0 && end->code <= UINT8_MAX ? end->code : EXIT_OURS;
}

static void put_part(const char *name, int64_t ns, struct buf *out)
{
	if (ns < 0)
		return;
	buf_printf(out, "%s%s ", out->len > 0 ? " · " : "", name);
	if (ns < NS_PER_S)
		buf_printf(out, "%" PRId64 " ms", (ns + NS_PER_MS / 2) / NS_PER_MS);
	else if (ns < 60 * NS_PER_S)
		buf_printf(out, "%.1f s", (double)ns / (double)NS_PER_S);
	else
		buf_printf(out, "%" PRId64 " min %" PRId64 " s", ns / (60 * NS_PER_S), ns / NS_PER_S % 60);
}

void ending_times(const struct attach_end *end, struct buf *out)
{
	put_part("queued", end->queued_ns, out);
	put_part("vm", end->vm_ns, out);
	put_part("ran", end->ran_ns, out);
	put_part("gone", end->gone_ns, out);
}

/* From an agent: it cannot steer our terminal. What Ctrl-C or a reader that went away did is no news, to a shell
 * neither.
 */
static void say_why(const struct attach_end *end)
{
	autovar(buf) text = {0};

	if (ended_for(end, "signal") && (end->signal == SIGINT || end->signal == SIGPIPE))
		return;
	(void)terminal_clean(str_c(end->text), false, &text);
	if (text.len > 0)
		(void)fprintf(stderr, "nimbus: %s\n", text.data);
	if (text.len > 0 || end->code >= 0 || end->signal != 0)
		return;
	(void)terminal_clean(str_c(end->reason), false, &text);
	(void)fprintf(stderr, "nimbus: the command did not run (%s)\n", text.len > 0 ? text.data : "no reason given");
}

void ending_say(const struct attach_end *end, bool quiet)
{
	autovar(buf) times = {0};

	if (end->left != 0)
		return;
	if (!(end->cancelled && ended_for(end, "cancelled")))
		say_why(end);
	ending_times(end, &times);
	if (!quiet && times.len > 0 && isatty(STDERR_FILENO) == 1)
		(void)fprintf(stderr, "%s\n", times.data);
}
