#include "model/job_extras.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

#define FIELD(member, kind, ...)                                                  \
	{                                                                         \
		.name = #member, .type = JS_FIELD_##kind, .flags = JS_OMIT_EMPTY, \
		.offset = offsetof(struct job_extras, member), __VA_ARGS__        \
	}

static const struct js_field job_extras_fields[] = {
	FIELD(workdir, TEXT, .max = JOB_PATH_MAX),
	FIELD(inputs, TEXTS, .max = JOB_FOLDERS_MAX),
	FIELD(outputs, TEXTS, .max = JOB_FOLDERS_MAX),
	FIELD(session, BOOL),
	FIELD(stdin_open, BOOL),
	FIELD(rows, I64, .min = 0, .max = JOB_ROWS_MAX),
	FIELD(cols, I64, .min = 0, .max = JOB_ROWS_MAX),
};
const struct js_shape job_extras_shape = JS_SHAPE(struct job_extras, job_extras_fields);

static bool has_dots(const char *path)
{
	struct str rest = str_c(path);

	while (rest.data != NULL)
		if (str_eq(str_cut(&rest, '/'), STR("..")))
			return true;
	return false;
}

int job_path_check(const char *path, const char *field, struct err *err)
{
	bool clean = true;

	for (const char *c = path; *c != '\0'; c++)
		clean = clean && (unsigned char)*c >= ' ' && *c != 0x7f;
	if (path[0] != '/')
		return err_set(err, ERR_INVALID_FIELD, "%s: '%.100s' is no absolute path", field, path);
	if (strlen(path) > JOB_PATH_MAX || !clean || has_dots(path))
		return err_set(err, ERR_INVALID_FIELD,
			       "%s: a path has at most %d bytes, no '..' and no control characters", field,
			       JOB_PATH_MAX);
	return 0;
}

static int check_folders(const struct js_texts *folders, const char *name, struct err *err)
{
	int rc = 0;

	if (folders->count > JOB_FOLDERS_MAX)
		return err_set(err, ERR_INVALID_FIELD, "%s: at most %d", name, JOB_FOLDERS_MAX);
	for (size_t i = 0; i < folders->count && rc == 0; i++) {
		char field[32];
		(void)snprintf(field, sizeof(field), "%s.%zu.path", name, i);
		rc = job_path_check(folders->items[i], field, err);
	}
	return rc;
}

int job_extras_check(const struct job_extras *e, struct err *err)
{
	int rc = e->workdir != NULL ? job_path_check(e->workdir, "workdir", err) : 0;

	if (rc == 0)
		rc = check_folders(&e->inputs, "inputs", err);
	if (rc == 0)
		rc = check_folders(&e->outputs, "outputs", err);
	if (rc == 0 && (e->rows == 0) != (e->cols == 0))
		rc = err_set(err, ERR_INVALID_FIELD, "session.tty: needs both rows and cols, over 0");
	return rc;
}

bool job_extras_empty(const struct job_extras *e)
{
	return e->workdir == NULL && e->inputs.count == 0 && e->outputs.count == 0 && !e->session;
}
