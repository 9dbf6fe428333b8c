#include "agent/job/life.h"

#include <assert.h>

static const struct {
	const char *text;
	bool has_slot;
	bool is_renewed;
} lives[LIFE_COUNT] = {
#define X(name, text, slot, renewed) [LIFE_##name] = {text, slot, renewed},
	JOB_LIVES(X)
#undef X
};

#define TO(name) (1U << LIFE_##name)
#define ENDS (TO(ENDED) | TO(LOST))

static const unsigned moves[LIFE_COUNT] = {
	[LIFE_LEASED] = TO(BOOTING) | ENDS,
	/* What a shim tells to the agent that adopts it: each step that it has reached, in order. */
	[LIFE_ADOPTED] = TO(BOOTING) | TO(CHECKING) | TO(RUNNING) | TO(REPORTING) | TO(CLOSING) | ENDS,
	[LIFE_BOOTING] = TO(CHECKING) | ENDS,
	/* running straight from checking: an agent before us sent `go`. */
	[LIFE_CHECKING] = TO(GOING) | TO(RUNNING) | ENDS,
	[LIFE_GOING] = TO(RUNNING) | ENDS,
	[LIFE_RUNNING] = ENDS,
	[LIFE_ENDED] = TO(REPORTING) | TO(LOST),
	[LIFE_REPORTING] = TO(CLOSING) | TO(LOST),
	[LIFE_LOST] = TO(CLOSING),
};

const char *job_life_text(enum job_life life)
{
	assert(life < LIFE_COUNT);
	return lives[life].text;
}

bool job_life_may_move(enum job_life from, enum job_life to)
{
	assert(from < LIFE_COUNT && to < LIFE_COUNT);
	return (moves[from] & 1U << to) != 0;
}

bool job_life_has_slot(enum job_life life)
{
	assert(life < LIFE_COUNT);
	return lives[life].has_slot;
}

bool job_life_is_renewed(enum job_life life)
{
	assert(life < LIFE_COUNT);
	return lives[life].is_renewed;
}
