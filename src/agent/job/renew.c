#include "agent/job/renew.h"

#include "agent/control_client.h"
#include "agent/metrics.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"

static int64_t between(int64_t n, int64_t least, int64_t most)
{
	if (n < least)
		return least;
	return n > most ? most : n;
}

/* Short enough that several tries fit into a lease. */
static int64_t call_timeout(const struct lease *l)
{
	return between(l->ttl_ns / 6, 500 * NS_PER_MS, 10 * NS_PER_S);
}

static void on_timer(void *ctx)
{
	struct agent_job *j = ctx;

	if (lease_over(&j->lease, clock_monotonic_ns()))
		j->events->lost(j, "the lease ran out");
	else
		job_renew(j, j->life == LIFE_CHECKING || (j->life == LIFE_LEASED && j->from_pool));
}

/* At the lease's end at the latest, so that the end is noticed. */
static void renew_at(struct agent_job *j, int64_t at_ns)
{
	struct err err = {0};

	if (at_ns > j->lease.deadline_ns)
		at_ns = j->lease.deadline_ns;
	if (j->renew_timer != NULL)
		loop_timer_set(j->renew_timer, at_ns);
	else if (loop_add_timer(j->agent->loop, at_ns, LOOP_URGENT, on_timer, j, &j->renew_timer, &err) < 0)
		j->events->lost(j, err.msg);
}

static void on_failed(struct agent_job *j, const struct control_answer *answer)
{
	int64_t now = clock_monotonic_ns();

	metrics_inc(j->agent->metrics, M_RENEWAL_ERRORS);
	if (answer->lease_is_over) {
		j->events->lost(j, answer->err->msg);
		return;
	}
	if (j->lease.failures == 0)
		log_warn("a lease could not be renewed: trying again until it ends", F("job", j->job_id),
			 F("error", answer->err), F("seconds_left", (j->lease.deadline_ns - now) / NS_PER_S));
	renew_at(j, lease_next_try(&j->lease, now));
}

static void on_answer(void *ctx, const struct control_answer *answer)
{
	struct agent_job *j = ctx;
	struct renew_answer renewed;
	struct err err = {0};

	j->renew_call = NULL;
	if (answer->err != NULL) {
		on_failed(j, answer);
		return;
	}
	autoptr(arena) arena = arena_new();
	if (js_decode(answer->body, &renew_answer_shape, arena, &renewed, &err) < 0) {
		on_failed(j, &(struct control_answer){.err = &err});
		return;
	}
	metrics_inc(j->agent->metrics, M_RENEWALS);
	int64_t ttl = renewed.lease_ttl_seconds > 0 ? renewed.lease_ttl_seconds * NS_PER_S : j->lease.ttl_ns;
	lease_renewed(&j->lease, answer->sent_ns, ttl);
	renew_at(j, lease_next_renewal(&j->lease, answer->sent_ns));
	if (!j->secrets_asked)
		renewed.secret_env = NULL;
	j->events->renewed(j, &renewed);
}

void job_renew(struct agent_job *j, bool secrets)
{
	if (j->renew_call != NULL && (!secrets || j->secrets_asked))
		return;
	control_cancel(j->renew_call);
	j->secrets_asked = secrets;
	struct renew_request request = {
		.job_id = j->job_id,
		.agent_id = j->agent->id,
		.fence_token = j->lease.fence,
		.want_secrets = secrets,
	};
	j->renew_call = control_post(j->agent->control, "/api/jobs/lease/renew",
				     js_encode(&renew_request_shape, &request), call_timeout(&j->lease), on_answer, j);
}

void job_renew_stop(struct agent_job *j)
{
	control_cancel(TAKE(j->renew_call));
	loop_source_free(TAKE(j->renew_timer));
}
