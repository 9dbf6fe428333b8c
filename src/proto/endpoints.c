#include "proto/endpoints.h"

#include "base/js.h"

static const struct js_field fields[] = {
	{"control_plane", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct endpoints, control_plane)},
	{"logging_pipeline", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct endpoints, logging_pipeline)},
	{"agent_metrics", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct endpoints, agent_metrics)},
	{"pid", JS_FIELD_I64, JS_REQUIRED, offsetof(struct endpoints, pid)},
	{"version", JS_FIELD_TEXT, JS_REQUIRED, offsetof(struct endpoints, version)},
};
static const struct js_shape shape = JS_SHAPE(struct endpoints, fields);

int endpoints_decode(struct str text, struct arena *arena, struct endpoints *ret, struct err *err)
{
	autoptr(js) v = NULL;

	int rc = js_parse(text, &v, err);
	return rc < 0 ? rc : js_decode(v, &shape, arena, ret, err);
}

void endpoints_encode(const struct endpoints *e, struct buf *out)
{
	autoptr(js) v = js_encode(&shape, e);

	js_write_pretty(v, out);
	buf_putc(out, '\n');
}
