#include "cli/state_style.h"

#include "base/str.h"
#include "model/job_state.h"

enum style state_style(const char *state)
{
	enum job_state parsed = JOB_QUEUED;

	if (job_state_parse(str_c(state), &parsed, NULL) < 0)
		return STYLE_PLAIN;
	if (parsed == JOB_SUCCEEDED)
		return STYLE_GOOD;
	if (job_state_final(parsed))
		return STYLE_BAD;
	return job_state_live(parsed) ? STYLE_BUSY : STYLE_PLAIN;
}
