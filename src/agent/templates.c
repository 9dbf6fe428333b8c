#include "agent/templates.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/chores.h"
#include "agent/context.h"
#include "agent/host_memory.h"
#include "agent/job/record.h"
#include "agent/metrics.h"
#include "agent/template_maker.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/names.h"
#include "model/template_plan.h"
#include "net/loop.h"
#include "vm/driver.h"

enum {
	WISHES_MAX = 64, /* machines remembered; of those without a template the one asked for longest ago goes */
	IMAGE_MAX = 256,
	FOUND_MAX = 64, /* templates of former agents that are looked at */
	DOOMED_MAX = 64,
};

static const int64_t look_ns = NS_PER_S;	 /* between two looks at what is to be done */
static const int64_t retry_ns = 60 * NS_PER_S;	 /* after a try to make one failed */
static const int64_t rest_ns = 15 * NS_PER_S;	 /* where nothing was to be done: room may become short */
static const int64_t patience_ns = 5 * NS_PER_S; /* with jobs that are being started all the time */
static const int64_t memory_reserve = INT64_C(256) << 20;
static const int64_t disk_reserve_least = INT64_C(64) << 20;

enum wish_state {
	WISH_NONE,  /* its VMs boot */
	WISH_FOUND, /* a former agent made one; it is to be read through first */
	WISH_CHECKING,
	WISH_MAKING,
	WISH_READY,
};

struct wish {
	enum wish_state state;
	char image[IMAGE_MAX];
	struct template_shape shape; /* accel is a constant */
	struct template_wish plan;
	struct vm_template template; /* FOUND, CHECKING, READY */
};

/* What the worker found in the folder. */
struct found {
	struct vm_template templates[FOUND_MAX];
	char images[FOUND_MAX][IMAGE_MAX];
	int64_t bytes[FOUND_MAX];
	int64_t accels[FOUND_MAX];
	size_t count;
};

struct templates {
	struct agent *agent;
	templates_forgot_fn forgot;
	struct secret *key;
	struct wish wishes[WISHES_MAX];
	size_t count;
	struct loop_source *timer;
	bool begun;
	bool busy; /* the worker is at it */

	size_t at; /* the wish that the process is for */
	struct process process;
	struct loop_source *exit;
	int64_t started_ns;

	/* The worker's while `busy`. */
	struct found *found;
	struct err work_err;
	struct process spawned;
	char doomed[DOOMED_MAX][TEMPLATE_NAME_SIZE];
	size_t removing; /* so many, from the first */

	size_t doomed_count;
	int64_t idle_ns; /* when no job was being started, as last seen */
};

static void look_soon(struct templates *t)
{
	loop_timer_set(t->timer, clock_monotonic_ns() + look_ns);
}

static const char *accel_name(int64_t accel)
{
	return accel == VM_KVM ? "kvm" : "tcg";
}

static void show(struct templates *t)
{
	size_t ready = 0;

	for (size_t i = 0; i < t->count; i++)
		ready += t->wishes[i].state == WISH_READY;
	metrics_set(t->agent->metrics, M_TEMPLATES, (double)ready);
}

/* --- wishes --- */

static struct wish *find(struct templates *t, const char *image, const struct template_shape *shape)
{
	for (size_t i = 0; i < t->count; i++)
		if (strcmp(t->wishes[i].image, image) == 0 && template_shape_equal(&t->wishes[i].shape, shape))
			return &t->wishes[i];
	return NULL;
}

static struct wish *find_by_name(struct templates *t, const char *name)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->wishes[i].state != WISH_NONE && strcmp(t->wishes[i].template.name, name) == 0)
			return &t->wishes[i];
	return NULL;
}

/* The one without a template that was asked for longest ago makes room. */
static struct wish *free_wish(struct templates *t)
{
	struct wish *oldest = NULL;

	if (t->count < WISHES_MAX)
		return &t->wishes[t->count++];
	for (size_t i = 0; i < t->count; i++) {
		struct wish *w = &t->wishes[i];
		if (w->state == WISH_NONE && (oldest == NULL || w->plan.last_asked_ns < oldest->plan.last_asked_ns))
			oldest = w;
	}
	return oldest;
}

static struct wish *add(struct templates *t, const char *image, const struct template_shape *shape)
{
	struct wish *w = strlen(image) < IMAGE_MAX ? free_wish(t) : NULL;

	if (w == NULL)
		return NULL;
	*w = (struct wish){.shape = *shape, .plan = {.memory_bytes = shape->memory_mb << 20}};
	w->shape.accel = accel_name(t->agent->accel);
	(void)snprintf(w->image, sizeof(w->image), "%s", image);
	return w;
}

static struct template_shape shape_of(const struct templates *t, const struct job_assignment *job)
{
	return (struct template_shape){
		.accel = accel_name(t->agent->accel),
		.vcpus = job->vcpus,
		.memory_mb = job->memory_mb,
		.disk_mb = job->disk_mb,
		.network = job->network != NULL && strcmp(job->network, JOB_NETWORK_OPEN) == 0,
	};
}

/* The same name may stand for another file tomorrow. */
static bool key_of(const struct job_assignment *job, char key[static IMAGE_MAX])
{
	int len = job->image_digest != NULL ? snprintf(key, IMAGE_MAX, "%s@%s", job->image, job->image_digest)
					    : snprintf(key, IMAGE_MAX, "%s", job->image);

	return len < IMAGE_MAX;
}

bool templates_ask(struct templates *t, const struct job_assignment *job, struct vm_template *ret)
{
	/* Jobs that come before the folder was looked through are asking, too. */
	if (t == NULL || t->key == NULL)
		return false;
	struct template_shape shape = shape_of(t, job);
	char image[IMAGE_MAX];
	if (!key_of(job, image))
		return false;
	struct wish *w = find(t, image, &shape);
	if (w == NULL)
		w = add(t, image, &shape);
	if (w == NULL)
		return false;
	w->plan.asked++;
	w->plan.last_asked_ns = clock_monotonic_ns();
	look_soon(t);
	if (w->state != WISH_READY)
		return false;
	*ret = w->template;
	return true;
}

/* --- dropping --- */

/* VMs that were begun from it go on: they have its files open. */
static void doom(struct templates *t, const char *name)
{
	/* One that finds no place here is removed by the next agent. */
	if (t->doomed_count < DOOMED_MAX)
		(void)snprintf(t->doomed[t->doomed_count++], TEMPLATE_NAME_SIZE, "%s", name);
	look_soon(t);
}

static void forget(struct templates *t, struct wish *w)
{
	t->forgot(t->agent, w->template.name);
	doom(t, w->template.name);
	w->state = WISH_NONE;
	w->plan.has = false;
	w->plan.bytes = 0;
	show(t);
}

static void remove_on_worker(void *ctx)
{
	struct templates *t = ctx;

	t->work_err = (struct err){0};
	for (size_t i = 0; i < t->removing; i++)
		(void)!template_remove(t->agent->host.templates_fd, t->doomed[i], &t->work_err);
}

static void on_removed(void *ctx)
{
	struct templates *t = ctx;

	t->busy = false;
	if (t->work_err.code != 0)
		log_warn("a template could not be removed", F("error", &t->work_err));
	t->doomed_count -= t->removing;
	memmove(t->doomed, t->doomed + t->removing, t->doomed_count * sizeof(t->doomed[0]));
	look_soon(t);
}

void templates_stale(struct templates *t, const char *name)
{
	struct wish *w = find_by_name(t, name);

	if (w == NULL || w->state != WISH_READY)
		return;
	log_info("a template is of the past: it is made again", F("template", name), F("image", w->image));
	forget(t, w);
}

void templates_broken(struct templates *t, const char *name, const char *why)
{
	struct wish *w = find_by_name(t, name);

	log_warn("a template cannot be used: VMs boot, and it is made again", F("template", name), F("why", why));
	metrics_inc(t->agent->metrics, M_TEMPLATES_BROKEN);
	if (w != NULL && w->state == WISH_READY)
		forget(t, w);
}

/* --- what is in the folder --- */

static void look_at_folder_entry(void *ctx, const char *name, bool done)
{
	struct templates *t = ctx;
	autoptr(arena) arena = arena_new();
	struct found *f = t->found;
	struct err err = {0};

	if (!done || f->count == FOUND_MAX) {
		/* Nobody makes one now. */
		(void)!template_remove(t->agent->host.templates_fd, name, &t->work_err);
		return;
	}
	struct vm_template *found = &f->templates[f->count];
	int rc = template_load(t->agent->host.templates_fd, name, t->key, arena, &found->manifest, &err);
	if (rc == 0)
		rc = template_fits_host(&found->manifest, t->agent->tsc_khz, &err);
	if (rc != 0) {
		if (rc < 0)
			log_warn("a template is not what was made: it is removed", F("error", &err));
		(void)!template_remove(t->agent->host.templates_fd, name, &t->work_err);
		return;
	}
	(void)snprintf(found->name, sizeof(found->name), "%s", name);
	(void)snprintf(f->images[f->count], IMAGE_MAX, "%s", found->manifest.image);
	f->accels[f->count] = strcmp(found->manifest.shape.accel, "kvm") == 0 ? VM_KVM : VM_TCG;
	f->bytes[f->count] = template_bytes(t->agent->host.templates_fd, name);
	f->count++;
}

/* On the worker. The texts of a manifest are gone with its arena: what is needed of them stands beside it. */
static void look_at_folder(void *ctx)
{
	struct templates *t = ctx;

	t->work_err = (struct err){0};
	t->found->count = 0;
	(void)!template_each(t->agent->host.templates_fd, look_at_folder_entry, t, &t->work_err);
}

/* A machine that has one already keeps the one that it has. */
static void take_in(struct templates *t, const struct found *f, size_t i, enum wish_state state)
{
	struct template_shape shape = f->templates[i].manifest.shape;

	shape.accel = accel_name(f->accels[i]);
	if (find_by_name(t, f->templates[i].name) != NULL)
		return;
	struct wish *w = find(t, f->images[i], &shape);
	if (w == NULL && f->accels[i] == t->agent->accel)
		w = add(t, f->images[i], &shape);
	if (w == NULL || w->state == WISH_FOUND || w->state == WISH_READY) {
		doom(t, f->templates[i].name);
		return;
	}
	w->state = state;
	w->template = f->templates[i];
	w->template.manifest.shape = w->shape;
	w->plan.has = true;
	w->plan.bytes = f->bytes[i];
}

static void on_looked(void *ctx)
{
	struct templates *t = ctx;
	/* Our own child made and read them; those of former agents are read through first. */
	enum wish_state state = t->begun ? WISH_READY : WISH_FOUND;

	t->busy = false;
	if (t->work_err.code != 0)
		log_warn("the templates could not be looked through", F("error", &t->work_err));
	for (size_t i = 0; i < t->found->count; i++)
		take_in(t, t->found, i, state);
	t->begun = true;
	show(t);
	look_soon(t);
}

static void look_through(struct templates *t)
{
	t->busy = chores_give(t->agent->chores, look_at_folder, on_looked, t);
}

void templates_begin(struct templates *t)
{
	if (t != NULL && t->key != NULL)
		look_through(t);
}

/* --- the process --- */

static void after_process(struct templates *t, struct wish *w, bool good)
{
	if (w->state == WISH_CHECKING && good) {
		w->state = WISH_READY;
		show(t);
	} else if (w->state == WISH_CHECKING) {
		log_warn("a template is not what was made: it is made again", F("template", w->template.name));
		metrics_inc(t->agent->metrics, M_TEMPLATES_BROKEN);
		forget(t, w);
	} else if (good) {
		w->state = WISH_NONE; /* until the folder was looked at */
		metrics_inc(t->agent->metrics, M_TEMPLATES_MADE);
		log_info("a template was made", F("image", w->image), F("vcpus", w->shape.vcpus),
			 F("memory_mb", w->shape.memory_mb),
			 F("ms", (clock_monotonic_ns() - t->started_ns) / NS_PER_MS));
		look_through(t);
	} else {
		log_warn("a template could not be made: VMs boot", F("image", w->image), F("vcpus", w->shape.vcpus),
			 F("memory_mb", w->shape.memory_mb));
		w->state = WISH_NONE;
		w->plan.not_before_ns = clock_monotonic_ns() + retry_ns;
	}
}

static void on_exit_of_process(void *ctx, unsigned events)
{
	struct templates *t = ctx;
	struct process_exit how = {0};
	struct err err = {0};

	(void)events;
	loop_source_free(TAKE(t->exit));
	if (process_wait(&t->process, 0, &how, &err) < 0)
		log_warn("the end of the templates' process could not be read", F("error", &err));
	after_process(t, &t->wishes[t->at], how.exited && how.code == 0);
	look_soon(t);
}

/* As key_of() made it. */
static char *name_of(const struct wish *w, const char **ret_digest)
{
	const char *at = strchr(w->image, '@');

	*ret_digest = at != NULL ? at + 1 : NULL;
	return at != NULL ? xasprintf("%.*s", (int)(at - w->image), w->image) : xstrdup(w->image);
}

static int start_maker(struct templates *t, const struct wish *w)
{
	const struct vm_host *host = &t->agent->host;
	autovar(vm_shim) files;
	const char *digest = NULL;
	autofree char *name = name_of(w, &digest);
	struct template_order order = {.image = w->image,
				       .shape = w->shape,
				       .self_fd = host->self_fd,
				       .program = t->agent->settings->qemu_bin,
				       .tsc_khz = t->agent->tsc_khz};

	vm_shim_init(&files);
	int rc = vm_folder_open_image(host, name, digest, files.start_fds, &files.image, &t->work_err);
	order.kernel_fd = files.start_fds[SHIM_START_FD_KERNEL];
	order.initrd_fd = files.start_fds[SHIM_START_FD_INITRD];
	order.root_fd = files.start_fds[SHIM_START_FD_ROOTFS];
	return rc == 0 ? template_maker_start(host, &order, &t->spawned, &t->work_err) : rc;
}

static void start_on_worker(void *ctx)
{
	struct templates *t = ctx;
	const struct vm_host *host = &t->agent->host;
	const struct wish *w = &t->wishes[t->at];

	t->work_err = (struct err){0};
	t->spawned.pidfd = -1;
	if (w->state == WISH_CHECKING) {
		(void)!template_checker_start(host, w->template.name, &t->spawned, &t->work_err);
		return;
	}
	(void)!start_maker(t, w);
}

static void on_started(void *ctx)
{
	struct templates *t = ctx;
	struct err err = t->work_err;

	t->busy = false;
	t->process = t->spawned;
	t->spawned.pidfd = -1;
	if (err.code == 0)
		(void)!loop_add_fd(t->agent->loop, t->process.pidfd, LOOP_READ, LOOP_NORMAL, on_exit_of_process, t,
				   &t->exit, &err);
	if (err.code != 0) {
		log_warn("a template cannot be made or checked", F("error", &err));
		after_process(t, &t->wishes[t->at], false);
	}
	look_soon(t);
}

static void start_process(struct templates *t, size_t at, enum wish_state state)
{
	enum wish_state before = t->wishes[at].state;

	t->at = at;
	t->wishes[at].state = state;
	t->started_ns = clock_monotonic_ns();
	t->busy = chores_give(t->agent->chores, start_on_worker, on_started, t);
	if (!t->busy)
		t->wishes[at].state = before;
}

/* --- what is to be done --- */

static struct template_room room_of(struct templates *t, bool busy)
{
	const struct agent *a = t->agent;
	uint64_t disk = 0;

	(void)!disk_free(a->host.templates_fd, &disk, NULL);
	return (struct template_room){
		.now_ns = clock_monotonic_ns(),
		.count_max = a->settings->templates_max,
		.bytes_max = a->settings->templates_max_bytes,
		.disk_free = (int64_t)disk,
		.disk_reserve = a->min_free_disk > disk_reserve_least ? a->min_free_disk : disk_reserve_least,
		.memory_free = host_memory_free(),
		.memory_reserve = memory_reserve,
		.busy = busy,
	};
}

static bool find_found(const struct templates *t, size_t *ret)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->wishes[i].state != WISH_FOUND)
			continue;
		*ret = i;
		return true;
	}
	return false;
}

/* A wish whose process runs is not touched. */
static void follow_plan(struct templates *t, bool busy)
{
	struct template_wish plan[WISHES_MAX];
	size_t at = 0;

	for (size_t i = 0; i < t->count; i++)
		plan[i] = t->wishes[i].plan;
	struct template_room room = room_of(t, busy || t->exit != NULL);
	enum template_step step = template_plan(plan, t->count, &room, &at);
	if (step == TEMPLATE_MAKE) {
		start_process(t, at, WISH_MAKING);
	} else if (step == TEMPLATE_DROP && !(t->exit != NULL && t->at == at)) {
		log_info("a template is dropped to make room", F("template", t->wishes[at].template.name),
			 F("image", t->wishes[at].image));
		t->wishes[at].plan.asked = 0;
		forget(t, &t->wishes[at]);
	}
}

/* Jobs that are being started come first, but not for ever: a host that is never idle needs templates most. */
static bool is_kept_off(struct templates *t)
{
	int64_t now = clock_monotonic_ns();

	if (jobs_starting(t->agent) == 0)
		t->idle_ns = now;
	return now - t->idle_ns < patience_ns && t->idle_ns != now;
}

static void on_timer(void *ctx)
{
	struct templates *t = ctx;
	bool kept_off = is_kept_off(t);
	size_t at = 0;

	loop_timer_set(t->timer, clock_monotonic_ns() + (kept_off ? look_ns : rest_ns));
	if (t->busy || !t->begun)
		return;
	t->removing = t->doomed_count;
	if (t->removing > 0)
		t->busy = chores_give(t->agent->chores, remove_on_worker, on_removed, t);
	else if (!kept_off && t->exit == NULL && find_found(t, &at))
		start_process(t, at, WISH_CHECKING);
	else
		follow_plan(t, kept_off);
}

/* --- life --- */

int templates_new(struct agent *a, templates_forgot_fn forgot, struct templates **ret, struct err *err)
{
	autoptr(templates) t = xcalloc(1, sizeof(*t));
	struct err key_err = {0};

	t->agent = a;
	t->forgot = forgot;
	t->found = xcalloc(1, sizeof(*t->found));
	t->process.pidfd = -1;
	t->spawned.pidfd = -1;
	if (template_key(a->host.templates_fd, &t->key, &key_err) < 0)
		log_warn("there are no templates: VMs boot", F("error", &key_err));
	int rc = loop_add_timer(a->loop, LOOP_NEVER, LOOP_BULK, on_timer, t, &t->timer, err);
	if (rc < 0)
		return rc;
	*ret = TAKE(t);
	return 0;
}

void templates_free(struct templates *t)
{
	struct process_exit ignored;

	if (t == NULL)
		return;
	loop_source_free(t->exit);
	if (t->process.pidfd < 0)
		t->process = t->spawned; /* the loop has not heard of it any more */
	if (t->process.pidfd >= 0 && process_signal(&t->process, SIGKILL, NULL) == 0)
		(void)!process_wait(&t->process, clock_monotonic_ns() + NS_PER_S, &ignored, NULL);
	fd_close(&t->process.pidfd);
	loop_source_free(t->timer);
	secret_free(t->key);
	free(t->found);
	free(t);
}
