#include "control/why.h"

#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "control/db/admission.h"
#include "control/db/job_files.h"

struct parked_reason {
	const char *reason;
	const char *sentence;
};

static const struct parked_reason parked_reasons[] = {
	{"github_app_not_configured",
	 "it waits for a GitHub App, and none is configured; NIMBUS_GITHUB_DRY_RUN=true lets it run as a plain job"},
	{JOB_FILES_REASON, "it waits for its files, which its client has to send"},
	{"github_in_progress", "GitHub gave it to another runner"},
	{ADMISSION_REASON, "its organisation is over its rate of new jobs; it is let in when there is room"},
	{"github_waiting", "GitHub holds it back until its deployment is approved"},
};

static bool offered_by(const struct agent *agent, const struct label_set *wanted, struct arena *arena)
{
	struct label_set offer = {0};

	return label_set_from_key(str_c(agent->labels), arena, &offer, NULL) == 0 && label_set_covers(&offer, wanted);
}

/* Those that offer the labels and have room (for none: any has), among those that drain or those that do not. */
static size_t count_fitting(const struct why_facts *f, const struct label_set *wanted, const struct job *room_for,
			    bool draining, struct arena *arena)
{
	size_t count = 0;

	for (size_t i = 0; i < f->agent_count; i++) {
		const struct agent *a = &f->agents[i];
		bool room = room_for == NULL || (a->vcpus >= room_for->vcpus && a->memory_mb >= room_for->memory_mb);
		count += room && (a->draining_at != 0) == draining && offered_by(a, wanted, arena);
	}
	return count;
}

static bool anyone_offers(const struct why_facts *f, const struct label_set *wanted, struct arena *arena)
{
	return count_fitting(f, wanted, NULL, false, arena) + count_fitting(f, wanted, NULL, true, arena) > 0;
}

/* The labels that nobody offers, or all of them where no one agent has them together. */
static const char *missing_labels(const struct job *job, const struct why_facts *f, struct arena *arena)
{
	autovar(buf) text = {0};

	for (size_t i = 0; i < job->labels.count; i++) {
		const struct label_set one = {&job->labels.items[i], 1};

		if (!anyone_offers(f, &one, arena))
			buf_printf(&text, "%s'%s'", text.len > 0 ? ", " : "", job->labels.items[i]);
	}
	if (text.len == 0)
		return arena_strdup(arena, job->label_key);
	return arena_strdup(arena, text.data);
}

/* "host-1, host-2" */
static const char *draining_names(const struct why_facts *f, const struct label_set *wanted, struct arena *arena)
{
	autovar(buf) text = {0};

	for (size_t i = 0; i < f->agent_count; i++)
		if (f->agents[i].draining_at != 0 && offered_by(&f->agents[i], wanted, arena))
			buf_printf(&text, "%s%s", text.len > 0 ? ", " : "", f->agents[i].agent_id);
	return arena_str(arena, buf_str(&text));
}

static const char *why_queued(const struct job *job, const struct why_facts *f, struct arena *arena)
{
	const struct label_set wanted = {job->labels.items, job->labels.count};

	if (f->agent_count == 0)
		return "no agent has asked for work lately";
	if (!anyone_offers(f, &wanted, arena))
		return arena_printf(arena, "no agent that asked for work lately offers its labels: %s",
				    missing_labels(job, f, arena));
	if (count_fitting(f, &wanted, NULL, false, arena) == 0)
		return arena_printf(arena, "the only agents with its labels are draining: %s",
				    draining_names(f, &wanted, arena));
	if (count_fitting(f, &wanted, job, false, arena) > 0)
		return "it waits for its turn";
	if (count_fitting(f, &wanted, job, true, arena) > 0)
		return arena_printf(arena, "the only agents with its labels and room for it are draining: %s",
				    draining_names(f, &wanted, arena));
	return "it waits for an agent with as many vcpus and as much memory free as it asks for";
}

static const char *why_held(const struct why_facts *f, struct arena *arena)
{
	char at[CLOCK_TEXT_SIZE];

	return arena_printf(arena,
			    "its organisation is over its rate of %" PRId64 " new jobs in %" PRId64
			    " s (NIMBUS_ORG_JOB_RATE_LIMIT); %" PRId64
			    " jobs of it are let in before this one, and there is room for it at about %s",
			    f->rate.limit, f->rate.interval_ns / NS_PER_S, f->ahead, clock_format(f->room_at, at));
}

static const char *why_parked(const struct job *job, const struct why_facts *facts, struct arena *arena)
{
	if (job->reason != NULL && strcmp(job->reason, ADMISSION_REASON) == 0 && facts->room_at > 0)
		return why_held(facts, arena);
	for (size_t i = 0; i < ARRAY_LEN(parked_reasons); i++)
		if (job->reason != NULL && strcmp(job->reason, parked_reasons[i].reason) == 0)
			return parked_reasons[i].sentence;
	return job->reason;
}

const char *why_waiting(const struct job *job, const struct why_facts *facts, struct arena *arena)
{
	if (job->state == JOB_PARKED)
		return why_parked(job, facts, arena);
	return job->state == JOB_QUEUED ? why_queued(job, facts, arena) : NULL;
}
