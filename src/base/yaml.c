#include "base/yaml.h"

#include <assert.h>
#include <string.h>

#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	yaml_event_t event;
	bool holds_event;
	const char *name;
	struct arena *arena;
	size_t nodes;
};

static int fail(const struct reader *r, const yaml_mark_t *at, struct err *err, const char *what)
{
	return err_set(err, ERR_INVALID, "%s:%zu: %s", r->name, at->line + 1, what);
}

static int parser_error(const struct reader *r, struct err *err)
{
	const char *problem = r->parser.problem != NULL ? r->parser.problem : "not YAML";

	if (r->parser.error == YAML_READER_ERROR)
		return err_set(err, ERR_INVALID, "%s: byte %zu: %s", r->name, r->parser.problem_offset, problem);
	return fail(r, &r->parser.problem_mark, err, problem);
}

static void drop_event(struct reader *r)
{
	if (r->holds_event)
		yaml_event_delete(&r->event);
	r->holds_event = false;
}

/* The event is in r until the next one. */
static int next_event(struct reader *r, struct err *err)
{
	drop_event(r);
	if (yaml_parser_parse(&r->parser, &r->event) == 0)
		return parser_error(r, err);
	r->holds_event = true;
	return 0;
}

static bool has_tag(const yaml_event_t *e)
{
	switch ((int)e->type) {
	case YAML_SCALAR_EVENT:
		return e->data.scalar.tag != NULL;
	case YAML_SEQUENCE_START_EVENT:
		return e->data.sequence_start.tag != NULL;
	case YAML_MAPPING_START_EVENT:
		return e->data.mapping_start.tag != NULL;
	default:
		return false;
	}
}

static bool has_anchor(const yaml_event_t *e)
{
	switch ((int)e->type) {
	case YAML_ALIAS_EVENT:
		return true;
	case YAML_SCALAR_EVENT:
		return e->data.scalar.anchor != NULL;
	case YAML_SEQUENCE_START_EVENT:
		return e->data.sequence_start.anchor != NULL;
	case YAML_MAPPING_START_EVENT:
		return e->data.mapping_start.anchor != NULL;
	default:
		return false;
	}
}

static int check_event(struct reader *r, size_t depth, struct err *err)
{
	if (has_anchor(&r->event))
		return fail(r, &r->event.start_mark, err, "anchors and aliases are not taken: write it out");
	if (has_tag(&r->event))
		return fail(r, &r->event.start_mark, err, "tags are not taken");
	if (depth > YAML_DEPTH_MAX)
		return fail(r, &r->event.start_mark, err, "nested too deeply");
	if (++r->nodes > YAML_NODES_MAX)
		return fail(r, &r->event.start_mark, err, "too many values");
	return 0;
}

static int scalar_text(struct reader *r, const char **ret, struct err *err)
{
	struct str text = {(const char *)r->event.data.scalar.value, r->event.data.scalar.length};

	if (memchr(text.data, '\0', text.len) != NULL)
		return fail(r, &r->event.start_mark, err, "a text with a NUL byte");
	*ret = arena_str(r->arena, text);
	return 0;
}

/* A key that comes twice would hide one of its values. */
static int read_key(struct reader *r, const struct yaml *map, const char **ret, struct err *err)
{
	if (r->event.type != YAML_SCALAR_EVENT)
		return fail(r, &r->event.start_mark, err, "a key must be a word");
	int rc = check_event(r, 0, err);
	if (rc == 0)
		rc = scalar_text(r, ret, err);
	if (rc == 0 && yaml_get(map, *ret) != NULL)
		return err_set(err, ERR_INVALID, "%s:%zu: '%.60s' stands twice", r->name, r->event.start_mark.line + 1,
			       *ret);
	return rc;
}

static int read_node(struct reader *r, size_t depth, const struct yaml **ret, struct err *err);

/* Up to the event that ends the list or map. */
static int read_children(struct reader *r, size_t depth, struct yaml *parent, struct err *err)
{
	const struct yaml **place = &parent->first;
	yaml_event_type_t end = parent->kind == YAML_MAP ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;

	for (;;) {
		const struct yaml *child = NULL;
		const char *key = NULL;
		int rc = next_event(r, err);
		if (rc < 0 || r->event.type == end)
			return rc;
		size_t line = r->event.start_mark.line + 1;
		if (parent->kind == YAML_MAP) {
			rc = read_key(r, parent, &key, err);
			if (rc == 0)
				rc = next_event(r, err);
		}
		if (rc == 0)
			rc = read_node(r, depth, &child, err);
		if (rc < 0)
			return rc;
		assert(child != NULL);
		struct yaml *linked = arena_alloc(r->arena, sizeof(*linked));
		*linked = *child;
		linked->key = key;
		linked->line = line;
		*place = linked;
		place = &linked->next;
		parent->count++;
	}
}

/* From the event at hand. */
static int read_node(struct reader *r, size_t depth, const struct yaml **ret, struct err *err)
{
	struct yaml *node = arena_alloc(r->arena, sizeof(*node));
	int rc = check_event(r, depth, err);

	node->line = r->event.start_mark.line + 1;
	if (rc < 0)
		return rc;
	if (r->event.type == YAML_SCALAR_EVENT) {
		rc = scalar_text(r, &node->text, err);
	} else {
		node->kind = r->event.type == YAML_MAPPING_START_EVENT ? YAML_MAP : YAML_LIST;
		rc = read_children(r, depth + 1, node, err);
	}
	*ret = node;
	return rc;
}

static int expect(struct reader *r, yaml_event_type_t type, const char *otherwise, struct err *err)
{
	int rc = next_event(r, err);

	if (rc == 0 && r->event.type != type)
		return fail(r, &r->event.start_mark, err, otherwise);
	return rc;
}

static int read_document(struct reader *r, const struct yaml **ret, struct err *err)
{
	int rc = expect(r, YAML_STREAM_START_EVENT, "not YAML", err);
	if (rc == 0)
		rc = expect(r, YAML_DOCUMENT_START_EVENT, "it is empty", err);
	if (rc == 0)
		rc = next_event(r, err);
	if (rc == 0)
		rc = read_node(r, 1, ret, err);
	if (rc == 0)
		rc = expect(r, YAML_DOCUMENT_END_EVENT, "not YAML", err);
	if (rc == 0)
		rc = expect(r, YAML_STREAM_END_EVENT, "a second document: one file holds one", err);
	return rc;
}

int yaml_read(struct str bytes, const char *name, struct arena *arena, const struct yaml **ret, struct err *err)
{
	struct reader r = {.name = name, .arena = arena};

	if (bytes.len > YAML_SIZE_MAX)
		return err_set(err, ERR_TOO_LARGE, "%s: more than %d bytes", name, YAML_SIZE_MAX);
	if (yaml_parser_initialize(&r.parser) == 0)
		return err_set(err, ERR_INTERNAL, "%s: libyaml does not start", name);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)(bytes.len > 0 ? bytes.data : ""), bytes.len);
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	int rc = read_document(&r, ret, err);
	drop_event(&r);
	yaml_parser_delete(&r.parser);
	return rc;
}

const struct yaml *yaml_get(const struct yaml *map, const char *key)
{
	if (map == NULL || map->kind != YAML_MAP)
		return NULL;
	for (const struct yaml *child = map->first; child != NULL; child = child->next)
		if (strcmp(child->key, key) == 0)
			return child;
	return NULL;
}
