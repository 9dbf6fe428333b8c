#include "shim/outcome.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* A process that the guest's OOM killer hit dies of SIGKILL, or its parent fails: that is what the job then is. One
 * that got over the loss of a child and says 0 has succeeded. */
static bool is_oom(const struct guest_exit *e)
{
	return e->oom && (e->signal != 0 || e->code != 0);
}

static enum shim_reason reason_of(const struct outcome_facts *f)
{
	if (f->stop == STOP_LEASE)
		return SHIM_REASON_LEASE_LOST;
	if (f->stop == STOP_CANCEL)
		return SHIM_REASON_CANCELLED;
	if (f->stop == STOP_TIMEOUT)
		return SHIM_REASON_TIMEOUT;
	if (f->start_failed.code != 0)
		return SHIM_REASON_START_FAILED;
	if (f->exited && is_oom(&f->exit))
		return SHIM_REASON_OOM;
	if (f->exited)
		return f->exit.signal != 0 ? SHIM_REASON_SIGNAL : SHIM_REASON_EXIT;
	if (f->vm_ended)
		return f->answered ? SHIM_REASON_VM_LOST : SHIM_REASON_START_FAILED;
	return SHIM_REASON_GUEST_LOST;
}

static void say(char text[static OUTCOME_TEXT_SIZE], const char *fmt, ...) printf_like(2, 3);
static void say(char text[static OUTCOME_TEXT_SIZE], const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, OUTCOME_TEXT_SIZE, fmt, args);
	va_end(args);
}

static const char *signal_name(int signal)
{
	const char *name = sigabbrev_np(signal);

	return name != NULL ? name : "?";
}

static void say_vm_ended(const struct outcome_facts *f, char text[static OUTCOME_TEXT_SIZE])
{
	const char *what = f->answered ? "the VM ended under its job" : "the VM ended before its guest answered";
	const char *words = f->last_words[0] != '\0' ? "; its last words: " : "";

	if (f->vmm.exited)
		say(text, "%s (exit code %d)%s%s", what, f->vmm.code, words, f->last_words);
	else
		say(text, "%s (killed by signal %d, SIG%s)%s%s", what, f->vmm.signal, signal_name(f->vmm.signal), words,
		    f->last_words);
}

static void say_why(const struct outcome_facts *f, enum shim_reason reason, char text[static OUTCOME_TEXT_SIZE])
{
	int signal = (int)f->exit.signal;

	switch (reason) {
	case SHIM_REASON_EXIT:
		say(text, "the job ended with exit code %u", f->exit.code);
		break;
	case SHIM_REASON_SIGNAL:
		say(text, "the job was killed by signal %d (SIG%s)", signal, signal_name(signal));
		break;
	case SHIM_REASON_OOM:
		say(text, "the job ran out of memory: give it more with --memory");
		break;
	case SHIM_REASON_TIMEOUT:
		say(text, "the job was ended after its time limit of %.0f s", (double)f->timeout_ns / (double)NS_PER_S);
		break;
	case SHIM_REASON_CANCELLED:
		say(text, "%s", f->sent ? "the job was cancelled" : "the job was cancelled before it began");
		break;
	case SHIM_REASON_VM_LOST:
		say_vm_ended(f, text);
		break;
	case SHIM_REASON_GUEST_LOST:
		say(text, "%s", f->guest_lost.msg);
		break;
	case SHIM_REASON_START_FAILED:
		if (f->start_failed.code != 0)
			say(text, "%s", f->start_failed.msg);
		else
			say_vm_ended(f, text);
		break;
	case SHIM_REASON_LEASE_LOST:
	case SHIM_REASON_COUNT:
		say(text, "the lease was lost: the VM was destroyed");
		break;
	}
}

void outcome_of(const struct outcome_facts *f, char text[static OUTCOME_TEXT_SIZE], struct shim_exited *ret)
{
	enum shim_reason reason = reason_of(f);

	say_why(f, reason, text);
	ret->reason = reason;
	ret->message = text;
	ret->exit_code = f->exited && f->exit.signal == 0 ? (int64_t)f->exit.code : -1;
	ret->signal = f->exited ? (int64_t)f->exit.signal : 0;
}
