/*
 * What a submit asks for beyond a command: from the words of POST /api/jobs to what is kept.
 */
#include "base/buf.h"
#include "control/handlers.h"
#include "model/job_extras.h"
#include "proto/agent_api.h"

struct folder {
	const char *path;
};

struct asked {
	struct js_objects inputs; /* struct folder */
	struct js_objects outputs;
	const char *workdir;
	struct talk {
		bool stdin_open;
		struct exec_tty tty;
	} session;
};

static const struct js_field folder_fields[] = {
	{"path", JS_FIELD_TEXT, .flags = JS_REQUIRED, .offset = offsetof(struct folder, path), .max = JOB_PATH_MAX},
};
static const struct js_shape folder_shape = JS_SHAPE(struct folder, folder_fields);

static const struct js_field talk_fields[] = {
	{"stdin", JS_FIELD_BOOL, .offset = offsetof(struct talk, stdin_open)},
	{"tty", JS_FIELD_OBJECT, .offset = offsetof(struct talk, tty), .shape = &exec_tty_shape},
};
static const struct js_shape talk_shape = JS_SHAPE(struct talk, talk_fields);

#define FIELD(member, kind, ...)                                                                                \
	{                                                                                                       \
		.name = #member, .type = JS_FIELD_##kind, .offset = offsetof(struct asked, member), __VA_ARGS__ \
	}

static const struct js_field asked_fields[] = {
	FIELD(inputs, OBJECTS, .max = JOB_FOLDERS_MAX, .shape = &folder_shape),
	FIELD(outputs, OBJECTS, .max = JOB_FOLDERS_MAX, .shape = &folder_shape),
	FIELD(workdir, TEXT, .max = JOB_PATH_MAX),
	FIELD(session, OBJECT, .shape = &talk_shape),
};
static const struct js_shape asked_shape = JS_SHAPE(struct asked, asked_fields);

static struct js_texts paths_of(const struct js_objects *folders, struct arena *a)
{
	const struct folder *items = folders->items;
	const char **paths = arena_calloc(a, folders->count + 1, sizeof(*paths));

	for (size_t i = 0; i < folders->count; i++)
		paths[i] = items[i].path;
	return (struct js_texts){paths, folders->count};
}

int submit_extras(struct http_request *req, struct job_extras *ret, struct err *err)
{
	const struct js *body = NULL;
	struct asked asked = {0};
	int r = http_body_js(req, &body, err);

	if (r == 0)
		r = http_body_decode(req, &asked_shape, &asked, err);
	if (r < 0)
		return r;
	const struct js *session = js_get(body, "session");
	*ret = (struct job_extras){
		.workdir = asked.workdir,
		.inputs = paths_of(&asked.inputs, http_arena(req)),
		.outputs = paths_of(&asked.outputs, http_arena(req)),
		.session = session != NULL && js_type(session) != JS_NULL,
		.stdin_open = asked.session.stdin_open,
		.rows = asked.session.tty.rows,
		.cols = asked.session.tty.cols,
	};
	return job_extras_check(ret, err);
}

const char *submit_extras_text(const struct job_extras *extras, struct arena *a)
{
	autovar(buf) text = {0};

	if (job_extras_empty(extras))
		return NULL;
	autoptr(js) object = js_encode(&job_extras_shape, extras);
	js_write(object, &text);
	return arena_strdup(a, text.data);
}
