#include "shim/outcome.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

#define RAN .answered = true, .sent = true
#define LOST_ERR                                             \
	{                                                    \
		.code = ERR_INVALID, .msg = "the guest lies" \
	}
#define START_ERR                                  \
	{                                          \
		.code = ERR_IO, .msg = "no kernel" \
	}

static const struct {
	struct outcome_facts facts;
	enum shim_reason reason;
	int64_t exit_code;
	int64_t signal;
	const char *message;
} cases[] = {
	{{RAN, .exited = true}, SHIM_REASON_EXIT, 0, 0, "the job ended with exit code 0"},
	{{RAN, .exited = true, .exit = {.code = 255}}, SHIM_REASON_EXIT, 255, 0, "the job ended with exit code 255"},
	{{RAN, .exited = true, .exit = {.signal = SIGABRT}},
	 SHIM_REASON_SIGNAL,
	 -1,
	 SIGABRT,
	 "the job was killed by signal 6 (SIGABRT)"},
	{{RAN, .exited = true, .exit = {.signal = SIGKILL, .oom = true}},
	 SHIM_REASON_OOM,
	 -1,
	 SIGKILL,
	 "the job ran out of memory: give it more with --memory"},
	{{RAN, .exited = true, .exit = {.oom = true}}, SHIM_REASON_EXIT, 0, 0, "the job ended with exit code 0"},
	/* Who ended it goes before how it ended. */
	{{RAN, .stop = STOP_TIMEOUT, .timeout_ns = 90 * NS_PER_S, .exited = true, .exit = {.signal = SIGTERM}},
	 SHIM_REASON_TIMEOUT,
	 -1,
	 SIGTERM,
	 "the job was ended after its time limit of 90 s"},
	{{RAN, .stop = STOP_CANCEL, .exited = true}, SHIM_REASON_CANCELLED, 0, 0, "the job was cancelled"},
	{{RAN, .stop = STOP_CANCEL, .vm_ended = true}, SHIM_REASON_CANCELLED, -1, 0, "the job was cancelled"},
	{{.stop = STOP_CANCEL}, SHIM_REASON_CANCELLED, -1, 0, "the job was cancelled before it began"},
	{{RAN, .stop = STOP_LEASE, .exited = true},
	 SHIM_REASON_LEASE_LOST,
	 0,
	 0,
	 "the lease was lost: the VM was destroyed"},
	{{.start_failed = START_ERR}, SHIM_REASON_START_FAILED, -1, 0, "no kernel"},
	{{.vm_ended = true, .vmm = {.exited = true, .code = 1}, .last_words = "no KVM"},
	 SHIM_REASON_START_FAILED,
	 -1,
	 0,
	 "the VM ended before its guest answered (exit code 1); its last words: no KVM"},
	{{RAN, .vm_ended = true, .vmm = {.signal = SIGKILL}},
	 SHIM_REASON_VM_LOST,
	 -1,
	 0,
	 "the VM ended under its job (killed by signal 9, SIGKILL)"},
	/* The guest had told its end before the VM went. */
	{{RAN, .vm_ended = true, .exited = true, .exit = {.code = 2}},
	 SHIM_REASON_EXIT,
	 2,
	 0,
	 "the job ended with exit code 2"},
	{{RAN, .guest_lost = LOST_ERR}, SHIM_REASON_GUEST_LOST, -1, 0, "the guest lies"},
	{{.guest_lost = LOST_ERR}, SHIM_REASON_GUEST_LOST, -1, 0, "the guest lies"},
};

static void every_end_has_its_reason(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct outcome_facts facts = cases[i].facts;
		struct shim_exited exited = {0};
		char text[OUTCOME_TEXT_SIZE];
		if (facts.last_words == NULL)
			facts.last_words = "";
		outcome_of(&facts, text, &exited);
		assert_string_equal(exited.message, cases[i].message);
		assert_int_equal(exited.reason, cases[i].reason);
		assert_int_equal(exited.exit_code, cases[i].exit_code);
		assert_int_equal(exited.signal, cases[i].signal);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(every_end_has_its_reason)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
