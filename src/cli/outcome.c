#include "cli/outcome.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/terminal.h"
#include "model/job_state.h"

const struct exit_code exit_codes[] = {
	{0, "done"},
	{1, "error"},
	{2, "wrong usage, or a request that the server finds wrong"},
	{3, "not found"},
	{4, "token missing, wrong, or not allowed to do that"},
	{EXIT_JOB_FAILED, "the job did not succeed (jobs submit --wait or --follow, logs -f)"},
	{6, "the waiting took too long (--wait-timeout, or no answer in time)"},
	{7, "the server cannot be reached, or cannot work now"},
	{EXIT_INTERRUPTED, "Ctrl-C while waiting; the job goes on"},
};
const size_t exit_code_count = ARRAY_LEN(exit_codes);

static int interrupted(int64_t job_id, const struct follow_end *end)
{
	(void)fprintf(stderr,
		      "job %" PRId64 " is %s and goes on; see it with: nimbus logs -f %" PRId64
		      ", end it with: nimbus jobs cancel %" PRId64 "\n",
		      job_id, end->state, job_id, job_id);
	return EXIT_INTERRUPTED;
}

/* The message comes from an agent: it cannot steer our terminal. */
static void say_failure(int64_t job_id, const struct js *job)
{
	autovar(buf) message = {0};

	(void)terminal_clean(str_c(js_text(js_get(job, "last_message"), "")), false, &message);
	(void)fprintf(stderr, "job %" PRId64 " %s%s%s\n", job_id, js_text(js_get(job, "state"), "did not succeed"),
		      message.len > 0 ? ": " : "", message.len > 0 ? message.data : "");
}

int outcome(struct session *s, int64_t job_id, const struct follow_end *end, const struct output_flags *output,
	    struct err *err)
{
	bool json = output != NULL && output->json != NULL;
	autofree char *path = xasprintf("/api/jobs/%" PRId64, job_id);
	bool succeeded = strcmp(end->state, job_state_text(JOB_SUCCEEDED)) == 0;
	autoptr(js) job = NULL;

	if (end->interrupted)
		return interrupted(job_id, end);
	if (succeeded && !json)
		return 0;
	int rc = session_ask(s, "GET", path, NULL, &job, err);
	if (rc == 0 && json)
		rc = print_json(output, job, err);
	if (rc < 0)
		return rc;
	if (!succeeded)
		say_failure(job_id, job);
	return succeeded ? 0 : EXIT_JOB_FAILED;
}
