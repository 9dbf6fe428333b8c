#include "proto/qmp_message.h"

static int sort(struct qmp_message *m, struct err *err)
{
	const struct js *event = js_get(m->tree, "event");
	const struct js *error = js_get(m->tree, "error");
	const struct js *returned = js_get(m->tree, "return");

	if (event != NULL) {
		m->type = QMP_EVENT;
		m->text = js_text(event, NULL);
		m->data = js_get(m->tree, "data");
	} else if (error != NULL) {
		m->type = QMP_FAILED;
		m->text = js_text(js_get(error, "desc"), "it does not say why");
	} else if (returned != NULL) {
		m->type = QMP_DONE;
		m->data = returned;
	} else if (js_get(m->tree, "QMP") != NULL) {
		m->type = QMP_GREETING;
	} else {
		return err_set(err, ERR_INVALID, "QMP: neither answer nor event");
	}
	return m->text != NULL ? 0 : err_set(err, ERR_INVALID, "QMP: an event without a name");
}

int qmp_message_decode(struct str line, struct qmp_message *ret, struct err *err)
{
	autovar(qmp_message) m = {.text = ""};

	if (line.len > QMP_LINE_MAX)
		return err_set(err, ERR_TOO_LARGE, "QMP: a line of more than %d bytes", QMP_LINE_MAX);
	int rc = js_parse(line, &m.tree, err);
	if (rc < 0)
		return err_wrap(err, "QMP");
	if (js_type(m.tree) != JS_OBJECT)
		return err_set(err, ERR_INVALID, "QMP: a line that is no object");
	rc = sort(&m, err);
	if (rc < 0)
		return rc;
	*ret = m;
	m.tree = NULL;
	return 0;
}

void qmp_message_fini(struct qmp_message *m)
{
	js_free(m->tree);
	*m = (struct qmp_message){.text = ""};
}

void qmp_command_encode(const char *command, struct js *arguments, struct buf *out)
{
	autoptr(js) v = js_new_object();

	js_set(v, "execute", js_new_text(command));
	if (arguments != NULL)
		js_set(v, "arguments", arguments);
	js_write(v, out);
	buf_append_str(out, STR("\n"));
}
