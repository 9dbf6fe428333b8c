#include "agent/pool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/chores.h"
#include "agent/context.h"
#include "agent/host_memory.h"
#include "agent/job/record.h"
#include "agent/metrics.h"
#include "agent/shim_link.h"
#include "agent/templates.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/names.h"
#include "model/pool.h"
#include "net/loop.h"
#include "vm/driver.h"

enum { KINDS_MAX = 16, IMAGE_MAX = 256 };

static const int64_t soon_ns = 50 * NS_PER_MS;	 /* after a change: a job that is starting gets its time */
static const int64_t check_ns = 5 * NS_PER_S;	 /* between two looks at what spares were begun from */
static const int64_t sweep_ns = 200 * NS_PER_MS; /* between two looks at what another process holds */
static const int64_t patience_ns = 2 * NS_PER_S; /* with jobs that are being started all the time */
static const int64_t ready_within_ns = 30 * NS_PER_S;
static const int64_t retry_ns = 60 * NS_PER_S;	     /* after one that could not be made */
static const int64_t life_margin_ns = 60 * NS_PER_S; /* a shim ends later than its agent would end it */
/* Of the host, until one of the kind was measured. */
static const int64_t clone_bytes = INT64_C(64) << 20;
static const int64_t memory_reserve = INT64_C(512) << 20;

struct kind {
	struct vm_template template;
	char image[IMAGE_MAX];
	char digest[IMAGE_MAX]; /* as leases name it; "": they do not */
	struct pool_kind plan;
	int64_t takes_ns; /* the last that got ready took so long, from its order on */
};

enum spare_state {
	SPARE_MAKING,	/* with the worker */
	SPARE_STARTING, /* its shim has its order */
	SPARE_READY,
	SPARE_ENDING, /* its shim was killed */
	SPARE_GONE,   /* its folder is to be removed */
};

struct spare {
	struct pool *pool;
	struct spare *next;
	enum spare_state state;
	char name[VM_FOLDER_NAME_SIZE];
	struct kind *kind; /* of its own: a copy, of whose plan only clone_bytes counts: what this one takes */
	struct vm_shim shim;
	struct shim_link *link;
	struct loop_source *exit;
	int64_t begun_ns;
	int64_t started_ns; /* its shim had its order: what the worker had to do before is not its own time */
};

struct pool {
	struct agent *agent;
	struct kind kinds[KINDS_MAX];
	size_t count;
	struct spare *spares;
	struct loop_source *timer;
	int64_t look_at; /* INT64_MAX: not at all */
	bool begun;
	bool swept;
	bool stopped;
	bool drained;	/* no jobs come */
	int64_t number; /* of the spare that was made last */
	int64_t idle_ns;
	int64_t checked_ns;
	size_t check_next;

	/* The worker's while `busy`. */
	bool busy;
	struct spare *at; /* made, or removed */
	struct kind checked;
	size_t left;
	int work_rc;
	struct err work_err;
};

/* An earlier look stays. */
static void look_in(struct pool *p, int64_t wait_ns)
{
	int64_t at = clock_monotonic_ns() + wait_ns;

	if (at >= p->look_at)
		return;
	p->look_at = at;
	loop_timer_set(p->timer, at);
}

static int64_t most(const struct pool *p)
{
	return p->agent->settings->warm_pools && !p->drained ? p->agent->settings->pool_max : 0;
}

static bool waits(const struct spare *s)
{
	return s->state <= SPARE_READY;
}

static void show(struct pool *p)
{
	int64_t ready = 0, bytes = 0;

	for (const struct spare *s = p->spares; s != NULL; s = s->next) {
		ready += s->state == SPARE_READY;
		bytes += s->state == SPARE_READY ? s->kind->plan.clone_bytes : 0;
	}
	metrics_set(p->agent->metrics, M_POOL, (double)ready);
	metrics_set(p->agent->metrics, M_POOL_BYTES, (double)bytes);
}

/* --- spares end --- */

static void free_spare(struct spare *s)
{
	struct pool *p = s->pool;
	struct spare **at = &p->spares;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	shim_link_free(s->link);
	loop_source_free(s->exit);
	vm_shim_fini(&s->shim);
	free(s->kind);
	free(s);
}

static void kill_spare(struct spare *s)
{
	struct err err = {0};

	if (s->shim.process.pidfd >= 0 && process_signal(&s->shim.process, SIGKILL, &err) < 0)
		log_error("cannot kill the shim of a spare VM", F("error", &err));
}

/* Its VM dies with it. What is with the worker is ended when it comes back. */
static void end_spare(struct spare *s)
{
	if (s->state == SPARE_MAKING || s->state >= SPARE_ENDING)
		return;
	s->state = SPARE_ENDING;
	shim_link_free(TAKE(s->link));
	kill_spare(s);
	show(s->pool);
}

static void give_up(struct spare *s, const char *why);

static void on_exit_of_shim(void *ctx, unsigned events)
{
	struct spare *s = ctx;
	struct process_exit how;
	struct err err = {0};

	(void)events;
	loop_source_free(TAKE(s->exit));
	if (waits(s))
		give_up(s, "its shim ended");
	if (process_wait(&s->shim.process, 0, &how, &err) < 0)
		log_warn("cannot reap the shim of a spare VM", F("error", &err));
	fd_close(&s->shim.process.pidfd);
	shim_link_free(TAKE(s->link));
	s->state = SPARE_GONE;
	show(s->pool);
	look_in(s->pool, 0);
}

/* --- kinds --- */

static struct kind *find_kind(struct pool *p, const char *template)
{
	for (size_t i = 0; i < p->count; i++)
		if (strcmp(p->kinds[i].template.name, template) == 0)
			return &p->kinds[i];
	return NULL;
}

static bool is_of(const struct spare *s, const struct kind *k)
{
	return strcmp(s->kind->template.name, k->template.name) == 0;
}

static struct spare *oldest_of(struct pool *p, const struct kind *k)
{
	struct spare *found = NULL;

	for (struct spare *s = p->spares; s != NULL; s = s->next)
		if (is_of(s, k) && waits(s) && (found == NULL || s->begun_ns < found->begun_ns))
			found = s;
	return found;
}

/* For a job. One that is with the worker cannot be had. */
static struct spare *best_of(struct pool *p, const struct kind *k)
{
	struct pool_clone best = {0};
	struct spare *found = NULL;

	for (struct spare *s = p->spares; s != NULL; s = s->next) {
		if (!is_of(s, k) || (s->state != SPARE_READY && s->state != SPARE_STARTING))
			continue;
		struct pool_clone c = {
			.ready = s->state == SPARE_READY, .begun_ns = s->started_ns, .takes_ns = k->takes_ns};
		if (!pool_rather(&c, found != NULL ? &best : NULL, clock_monotonic_ns()))
			continue;
		best = c;
		found = s;
	}
	return found;
}

/* The one that was asked for longest ago makes room. */
static struct kind *free_kind(struct pool *p)
{
	struct kind *oldest = &p->kinds[0];

	if (p->count < KINDS_MAX)
		return &p->kinds[p->count++];
	for (size_t i = 1; i < p->count; i++)
		if (p->kinds[i].plan.demand.last_ns < oldest->plan.demand.last_ns)
			oldest = &p->kinds[i];
	for (struct spare *s = p->spares; s != NULL; s = s->next)
		if (is_of(s, oldest))
			end_spare(s);
	return oldest;
}

static struct kind *kind_of(struct pool *p, const struct job_assignment *job, const struct vm_template *template)
{
	const char *digest = job->image_digest != NULL ? job->image_digest : "";
	struct kind *k = find_kind(p, template->name);

	if (k != NULL)
		return k;
	if (strlen(job->image) >= IMAGE_MAX || strlen(digest) >= IMAGE_MAX)
		return NULL;
	k = free_kind(p);
	*k = (struct kind){
		.template = *template,
		.plan = {.vcpus = job->vcpus, .memory_mb = job->memory_mb, .clone_bytes = clone_bytes, .can = true}};
	(void)snprintf(k->image, sizeof(k->image), "%s", job->image);
	(void)snprintf(k->digest, sizeof(k->digest), "%s", digest);
	return k;
}

static struct vm_order order_of(const struct kind *k)
{
	return (struct vm_order){.image = k->image,
				 .image_digest = k->digest[0] != '\0' ? k->digest : NULL,
				 .disk_mb = k->template.manifest.shape.disk_mb,
				 .template = &k->template};
}

void pool_forget(struct pool *p, const char *template)
{
	if (p == NULL)
		return;
	for (struct spare *s = p->spares; s != NULL; s = s->next)
		if (strcmp(s->kind->template.name, template) == 0)
			end_spare(s);
	struct kind *k = find_kind(p, template);
	if (k != NULL)
		*k = p->kinds[--p->count];
	look_in(p, 0);
}

/* --- making one --- */

static void on_message(void *ctx, const struct shim_msg *m)
{
	struct spare *s = ctx;
	struct kind *k = find_kind(s->pool, s->kind->template.name);

	if (m->type != SHIM_READY || s->state != SPARE_STARTING)
		return;
	s->state = SPARE_READY;
	int64_t took_ns = clock_monotonic_ns() - s->started_ns;
	pool_measured(&s->kind->plan, m->ready.memory_bytes);
	if (k != NULL) {
		k->takes_ns = took_ns;
		pool_measured(&k->plan, m->ready.memory_bytes);
	}
	log_debug("a spare VM is ready", F("image", s->kind->image), F("ms", took_ns / NS_PER_MS),
		  F("bytes", m->ready.memory_bytes));
	show(s->pool);
	look_in(s->pool, soon_ns);
}

/* Not made again at once: what it died of may be there still. */
static void give_up(struct spare *s, const char *why)
{
	struct kind *k = find_kind(s->pool, s->kind->template.name);

	log_warn("a spare VM is lost", F("image", s->kind->image), F("why", why));
	if (k != NULL)
		k->plan.not_before_ns = clock_monotonic_ns() + retry_ns;
	end_spare(s);
}

static void on_gone(void *ctx, const struct err *err)
{
	give_up(ctx, err != NULL ? err->msg : "its shim or its VM ended");
}

static const struct shim_link_ops link_ops = {on_message, on_gone};

static int give_order(struct spare *s, struct err *err)
{
	struct pool *p = s->pool;
	const struct template_shape *shape = &s->kind->template.manifest.shape;
	const struct shim_msg m = {.type = SHIM_SPARE,
				   .spare = {.vcpus = shape->vcpus,
					     .memory_mb = shape->memory_mb,
					     .accel = p->agent->accel,
					     .tsc_khz = p->agent->tsc_khz,
					     .vmm = p->agent->settings->qemu_bin,
					     .template = s->kind->template.name,
					     .until_ns = clock_monotonic_ns() + POOL_AGE_MAX_NS + life_margin_ns}};

	int rc = loop_add_fd(p->agent->loop, s->shim.process.pidfd, LOOP_READ, LOOP_NORMAL, on_exit_of_shim, s,
			     &s->exit, err);
	if (rc == 0)
		rc = shim_link_new(p->agent->loop, fd_take(&s->shim.socket), &link_ops, s, &s->link, err);
	return rc == 0 ? shim_link_send(s->link, &m, s->shim.start_fds, s->shim.start_fd_count, err) : rc;
}

static void make_on_worker(void *ctx)
{
	struct pool *p = ctx;
	struct vm_order order = order_of(p->at->kind);

	p->work_err = (struct err){0};
	p->work_rc = vm_folder_start_spare(&p->agent->host, p->at->name, &order, &p->at->shim, &p->work_err);
}

static void tell_templates(struct pool *p, const struct spare *s)
{
	autofree char *name = xstrdup(s->kind->template.name);

	if (s->shim.template == VM_TEMPLATE_STALE)
		templates_stale(p->agent->templates, name);
	else
		templates_broken(p->agent->templates, name, s->shim.template_err.msg);
	pool_forget(p, name);
}

static void close_start_fds(struct vm_shim *s)
{
	for (size_t i = 0; i < ARRAY_LEN(s->start_fds); i++)
		fd_close(&s->start_fds[i]);
	s->start_fd_count = 0;
}

static void on_made(void *ctx)
{
	struct pool *p = ctx;
	struct spare *s = TAKE(p->at);
	struct err err = p->work_err;

	p->busy = false;
	if (p->work_rc == VM_FOLDER_UNFIT)
		tell_templates(p, s);
	if (p->work_rc != 0) {
		if (p->work_rc < 0)
			give_up(s, err.msg);
		free_spare(s);
	} else {
		s->state = SPARE_STARTING;
		s->started_ns = clock_monotonic_ns();
		int rc = give_order(s, &err);
		close_start_fds(&s->shim);
		if (rc < 0)
			give_up(s, err.msg);
		else if (p->stopped || find_kind(p, s->kind->template.name) == NULL)
			end_spare(s);
	}
	look_in(p, soon_ns);
}

static void make(struct pool *p, const struct kind *k)
{
	struct spare *s = xcalloc(1, sizeof(*s));

	s->pool = p;
	s->kind = xmalloc(sizeof(*s->kind));
	*s->kind = *k;
	s->begun_ns = clock_monotonic_ns();
	vm_shim_init(&s->shim);
	(void)vm_folder_spare_name(++p->number, s->name);
	s->next = p->spares;
	p->spares = s;
	p->at = s;
	p->busy = chores_give(p->agent->chores, make_on_worker, on_made, p);
	if (p->busy)
		return;
	p->at = NULL;
	free_spare(s);
}

/* --- taking one --- */

enum { MISS_OFF, MISS_NO_TEMPLATE, MISS_NONE_READY, MISS_WASTED };

static bool miss(struct pool *p, size_t reason)
{
	metrics_add_at(p->agent->metrics, M_POOL_MISSES, reason, 1);
	return false;
}

bool pool_take(struct pool *p, const struct job_assignment *job, const struct vm_template *template,
	       struct vm_shim *ret, char spare[static VM_FOLDER_NAME_SIZE])
{
	if (p == NULL || !p->begun || p->stopped || most(p) == 0)
		return p != NULL && miss(p, MISS_OFF);
	/* A network is not begun before its job. */
	bool network = job->network != NULL && strcmp(job->network, JOB_NETWORK_OPEN) == 0;
	struct kind *k = template != NULL && !network ? kind_of(p, job, template) : NULL;
	if (k == NULL)
		return miss(p, MISS_NO_TEMPLATE);
	pool_asked(&k->plan.demand, clock_monotonic_ns());
	look_in(p, soon_ns);
	struct spare *s = best_of(p, k);
	if (s == NULL)
		return miss(p, MISS_NONE_READY);
	metrics_inc(p->agent->metrics, s->state == SPARE_READY ? M_POOL_HITS : M_POOL_EARLY);
	*ret = s->shim;
	vm_shim_init(&s->shim);
	ret->socket = shim_link_release(TAKE(s->link));
	ret->template = VM_TEMPLATE_USED;
	(void)snprintf(spare, VM_FOLDER_NAME_SIZE, "%s", s->name);
	free_spare(s);
	show(p);
	return true;
}

void pool_wasted(struct pool *p)
{
	(void)miss(p, MISS_WASTED);
}

/* --- what is to be done --- */

static void on_removed(void *ctx)
{
	struct pool *p = ctx;

	p->busy = false;
	if (p->work_rc == VM_FOLDER_BUSY) {
		/* A child that was being forked when the folder was begun holds its lock until it becomes its program.
		 */
		p->at = NULL;
		look_in(p, sweep_ns);
		return;
	}
	if (p->work_rc < 0)
		log_warn("the folder of a spare VM could not be removed: the next start tries again",
			 F("folder", p->at->name), F("error", &p->work_err));
	free_spare(TAKE(p->at));
	look_in(p, 0);
}

static void remove_on_worker(void *ctx)
{
	struct pool *p = ctx;

	p->work_err = (struct err){0};
	p->work_rc = vm_folder_remove(p->agent->host.vms_fd, p->at->name, &p->work_err);
}

static bool remove_one(struct pool *p)
{
	for (struct spare *s = p->spares; s != NULL; s = s->next) {
		if (s->state != SPARE_GONE)
			continue;
		p->at = s;
		p->busy = chores_give(p->agent->chores, remove_on_worker, on_removed, p);
		return p->busy;
	}
	return false;
}

static void sweep_on_worker(void *ctx)
{
	struct pool *p = ctx;

	p->work_err = (struct err){0};
	p->work_rc = vm_folder_sweep_spares(p->agent->host.vms_fd, &p->left, &p->work_err);
}

/* A name is used again only when nothing of a former agent has it. */
static void on_swept(void *ctx)
{
	struct pool *p = ctx;

	p->busy = false;
	if (p->work_rc < 0)
		log_warn("what a former agent left of its spare VMs could not be removed", F("error", &p->work_err));
	p->swept = p->work_rc == 0 && p->left == 0;
	look_in(p, p->swept ? 0 : sweep_ns);
}

static void check_on_worker(void *ctx)
{
	struct pool *p = ctx;
	struct vm_order order = order_of(&p->checked);
	struct image image;

	p->work_err = (struct err){0};
	p->work_rc = vm_folder_check(&p->agent->host, &order, &image, &p->work_err);
}

static void on_checked(void *ctx)
{
	struct pool *p = ctx;

	p->busy = false;
	p->checked_ns = clock_monotonic_ns();
	if (p->work_rc != 0) {
		log_info("spare VMs are of no use any more: they go", F("image", p->checked.image),
			 F("why", p->work_err.msg));
		/* What becomes of the template is found out, and said, when it is used. */
		pool_forget(p, p->checked.template.name);
	}
	look_in(p, soon_ns);
}

/* The next kind that has spares. */
static bool check_one(struct pool *p)
{
	if (clock_monotonic_ns() - p->checked_ns < check_ns)
		return false;
	for (size_t i = 0; i < p->count; i++) {
		const struct kind *k = &p->kinds[p->check_next++ % p->count];
		if (oldest_of(p, k) == NULL)
			continue;
		p->checked = *k;
		p->busy = chores_give(p->agent->chores, check_on_worker, on_checked, p);
		return p->busy;
	}
	return false;
}

/* Jobs that are being started come first, but not for ever. */
static bool is_kept_off(struct pool *p)
{
	int64_t now = clock_monotonic_ns();

	if (jobs_starting(p->agent) == 0)
		p->idle_ns = now;
	return p->idle_ns != now && now - p->idle_ns < patience_ns;
}

static bool one_is_made(const struct pool *p)
{
	for (const struct spare *s = p->spares; s != NULL; s = s->next)
		if (s->state < SPARE_READY)
			return true;
	return false;
}

static struct pool_room room_of(const struct pool *p, bool busy)
{
	const struct agent *a = p->agent;
	int64_t ending = 0;

	for (const struct spare *s = p->spares; s != NULL; s = s->next)
		ending += s->state == SPARE_ENDING ? s->kind->plan.clone_bytes : 0;
	return (struct pool_room){
		.now_ns = clock_monotonic_ns(),
		.count_max = p->stopped ? 0 : most(p),
		.vcpus = slots_vcpus_free(&a->slots),
		.memory_mb = slots_memory_mb_free(&a->slots),
		.memory_free = host_memory_free() + ending,
		.memory_reserve = memory_reserve,
		.busy = busy || !p->swept,
	};
}

static void count_spares(struct pool *p, struct pool_kind *plan)
{
	for (size_t i = 0; i < p->count; i++) {
		plan[i] = p->kinds[i].plan;
		for (const struct spare *s = p->spares; s != NULL; s = s->next) {
			if (!waits(s) || !is_of(s, &p->kinds[i]))
				continue;
			if (plan[i].ready++ == 0 || s->begun_ns < plan[i].oldest_ns)
				plan[i].oldest_ns = s->begun_ns;
		}
	}
}

/* What is too much goes at once; one is begun at most. */
static void follow_plan(struct pool *p, bool busy)
{
	struct pool_kind plan[KINDS_MAX];
	enum pool_step step = POOL_DROP;
	size_t at = 0;

	while (step == POOL_DROP) {
		struct pool_room room = room_of(p, busy);
		count_spares(p, plan);
		step = pool_plan(plan, p->count, &room, &at);
		if (step == POOL_MAKE)
			make(p, &p->kinds[at]);
		if (step != POOL_DROP)
			return;
		struct spare *s = oldest_of(p, &p->kinds[at]);
		if (s->state == SPARE_MAKING)
			return; /* its turn comes when the worker is done */
		end_spare(s);
	}
}

static void end_overdue(struct pool *p)
{
	int64_t now = clock_monotonic_ns();

	for (struct spare *s = p->spares; s != NULL; s = s->next)
		if (s->state == SPARE_STARTING && now - s->started_ns > ready_within_ns)
			give_up(s, "it does not get ready");
}

static bool wants_any(const struct pool *p)
{
	for (size_t i = 0; i < p->count && !p->stopped; i++)
		if (pool_wanted(&p->kinds[i].plan.demand, clock_monotonic_ns()) > 0)
			return true;
	return false;
}

static void on_timer(void *ctx)
{
	struct pool *p = ctx;
	bool kept_off = is_kept_off(p);

	p->look_at = INT64_MAX;
	if (p->busy || !p->begun)
		return;
	if (p->spares != NULL || wants_any(p))
		look_in(p, kept_off ? soon_ns : NS_PER_S);
	end_overdue(p);
	if (!p->swept)
		p->busy = chores_give(p->agent->chores, sweep_on_worker, on_swept, p);
	else if (!remove_one(p) && !(!kept_off && check_one(p)))
		follow_plan(p, kept_off || one_is_made(p));
}

void pool_look(struct pool *p)
{
	if (p == NULL || !p->begun || p->stopped || p->count == 0)
		return;
	follow_plan(p, true);
	look_in(p, soon_ns);
}

void pool_drain(struct pool *p, bool drained)
{
	if (p == NULL || p->drained == drained)
		return;
	p->drained = drained;
	pool_look(p);
}

/* --- life --- */

void pool_begin(struct pool *p)
{
	p->begun = true;
	look_in(p, 0);
}

void pool_stop(struct pool *p)
{
	p->stopped = true;
	for (struct spare *s = p->spares; s != NULL; s = s->next)
		end_spare(s);
}

int pool_new(struct agent *a, struct pool **ret, struct err *err)
{
	autoptr(pool) p = xcalloc(1, sizeof(*p));

	p->agent = a;
	p->look_at = INT64_MAX;
	int rc = loop_add_timer(a->loop, LOOP_NEVER, LOOP_BULK, on_timer, p, &p->timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(p);
	return 0;
}

static void bury(struct spare *s)
{
	struct process_exit ignored;
	struct err err = {0};

	kill_spare(s);
	if (s->shim.process.pidfd >= 0 &&
	    process_wait(&s->shim.process, clock_monotonic_ns() + NS_PER_S, &ignored, &err) < 0)
		log_warn("the shim of a spare VM does not end", F("error", &err));
	(void)!vm_folder_remove(s->pool->agent->host.vms_fd, s->name, &err);
	free_spare(s);
}

void pool_free(struct pool *p)
{
	if (p == NULL)
		return;
	while (p->spares != NULL)
		bury(p->spares);
	loop_source_free(p->timer);
	free(p);
}
