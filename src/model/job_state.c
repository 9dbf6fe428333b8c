#include "model/job_state.h"

#include <assert.h>

static const struct {
	const char *text;
	bool final;
} states[JOB_STATE_COUNT] = {
#define X(name, text, final) [JOB_##name] = {text, final},
	JOB_STATES(X)
#undef X
};

#define TO(name) (1U << JOB_##name)
/* Every end that an agent may report, or that ends a job from outside. */
#define ENDS (TO(SUCCEEDED) | TO(FAILED) | TO(CANCELLED) | TO(TIMED_OUT))
/* A lost lease: again, or never again. */
#define LOST (TO(QUEUED) | TO(DEAD))

/*
 * Reports of an agent may be lost or overtake one another, so a live job moves forward over any gap (leased ->
 * succeeded), never back. A job that nobody runs can only be cancelled, by us or at GitHub, or be found to have ended
 * there.
 */
static const unsigned moves[JOB_STATE_COUNT] = {
	[JOB_PARKED] = TO(QUEUED) | ENDS,
	[JOB_QUEUED] = TO(LEASED) | TO(PARKED) | ENDS,
	[JOB_LEASED] = TO(STARTING) | TO(RUNNING) | ENDS | LOST,
	[JOB_STARTING] = TO(RUNNING) | ENDS | LOST,
	[JOB_RUNNING] = ENDS | LOST,
};

const char *job_state_text(enum job_state state)
{
	assert(state < JOB_STATE_COUNT);
	return states[state].text;
}

int job_state_parse(struct str text, enum job_state *ret, struct err *err)
{
	for (unsigned i = 0; i < JOB_STATE_COUNT; i++) {
		if (str_eq(text, str_c(states[i].text))) {
			*ret = (enum job_state)i;
			return 0;
		}
	}
	return err_set(err, ERR_INVALID_FIELD, "'%.*s' is not the name of a job state", STR_ARG(text));
}

bool job_state_final(enum job_state state)
{
	assert(state < JOB_STATE_COUNT);
	return states[state].final;
}

bool job_state_live(enum job_state state)
{
	return state == JOB_LEASED || state == JOB_STARTING || state == JOB_RUNNING;
}

bool job_state_may_move(enum job_state from, enum job_state to)
{
	assert(from < JOB_STATE_COUNT && to < JOB_STATE_COUNT);
	return (moves[from] & 1U << to) != 0;
}
