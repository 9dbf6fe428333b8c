#include "base/js.h"

#include <inttypes.h>
#include <jansson.h>

#include "base/clock.h"
#include "base/mem.h"

enum { DEPTH_MAX = 64, VALUES_MAX = 1 << 20, TEXT_MAX_BYTES = 65536, LIST_MAX_ITEMS = 1024 };
/* 15 significant digits: what a double keeps of a decimal number, so that 0.1 is written as 0.1. */
static const size_t write_flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(15);

/* A struct js is jansson's json_t by another name; these two are the only places that know. */
static struct js *out_of(json_t *v)
{
	return (struct js *)v;
}

static json_t *in_of(const struct js *v)
{
	return (json_t *)(uintptr_t)v; /* jansson's readers lack const in places */
}

/* --- text --- */

/* jansson's own bound is 2,048 levels, by recursion, and none for their number: a tree may be thirty times its text. */
static int check_bounds(struct str text, struct err *err)
{
	size_t depth = 0;
	size_t values = 0;
	bool quoted = false;

	for (size_t i = 0; i < text.len && values <= VALUES_MAX; i++) {
		char c = text.data[i];
		if (quoted && c == '\\')
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == '[' || c == '{') && ++depth > DEPTH_MAX)
			return err_set(err, ERR_INVALID, "JSON: more than %d levels deep at byte %zu", DEPTH_MAX, i);
		else if (!quoted && (c == ']' || c == '}') && depth > 0)
			depth--;
		values += !quoted && (c == ',' || c == '[' || c == '{');
	}
	return values <= VALUES_MAX ? 0 : err_set(err, ERR_INVALID, "JSON: more than %d values", VALUES_MAX);
}

int js_parse(struct str text, struct js **ret, struct err *err)
{
	int rc = check_bounds(text, err);
	if (rc < 0)
		return rc;
	json_error_t error;
	json_t *v = json_loadb(text.data != NULL ? text.data : "", text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY,
			       &error);
	if (v == NULL) {
		/* Without the excerpt that jansson adds: the text may hold a secret. */
		char *excerpt = strstr(error.text, " near ");
		if (excerpt != NULL)
			*excerpt = '\0';
		if (json_error_code(&error) == json_error_null_character)
			(void)snprintf(error.text, sizeof(error.text), "a text holds a zero byte, \\u0000");
		return err_set(err, ERR_INVALID, "JSON: line %d, column %d: %s", error.line, error.column, error.text);
	}
	*ret = out_of(v);
	return 0;
}

void js_free(struct js *v)
{
	json_decref(in_of(v));
}

static int append(const char *bytes, size_t len, void *out)
{
	buf_append(out, bytes, len);
	return 0;
}

static void dump(const struct js *v, size_t flags, struct buf *out)
{
	if (json_dump_callback(in_of(v), append, out, write_flags | flags) != 0)
		out_of_memory(); /* the values are valid by construction, and append() cannot fail */
}

void js_write(const struct js *v, struct buf *out)
{
	dump(v, JSON_COMPACT, out);
}

void js_write_pretty(const struct js *v, struct buf *out)
{
	dump(v, JSON_INDENT(2), out);
}

void js_write_sorted(const struct js *v, struct buf *out)
{
	dump(v, JSON_COMPACT | JSON_SORT_KEYS, out);
}

/* --- reading --- */

enum js_type js_type(const struct js *v)
{
	switch (json_typeof(in_of(v))) {
	case JSON_OBJECT:
		return JS_OBJECT;
	case JSON_ARRAY:
		return JS_ARRAY;
	case JSON_STRING:
		return JS_STRING;
	case JSON_INTEGER:
		return JS_INT;
	case JSON_REAL:
		return JS_REAL;
	case JSON_TRUE:
	case JSON_FALSE:
		return JS_BOOL;
	case JSON_NULL:
		break;
	}
	return JS_NULL;
}

static bool is(const struct js *v, enum js_type type)
{
	return v != NULL && js_type(v) == type;
}

const struct js *js_get(const struct js *v, const char *key)
{
	return is(v, JS_OBJECT) ? out_of(json_object_get(in_of(v), key)) : NULL;
}

size_t js_len(const struct js *array)
{
	return is(array, JS_ARRAY) ? json_array_size(in_of(array)) : 0;
}

const struct js *js_at(const struct js *array, size_t index)
{
	return is(array, JS_ARRAY) ? out_of(json_array_get(in_of(array), index)) : NULL;
}

const char *js_text(const struct js *v, const char *fallback)
{
	return is(v, JS_STRING) ? json_string_value(in_of(v)) : fallback;
}

int64_t js_int(const struct js *v, int64_t fallback)
{
	return is(v, JS_INT) ? json_integer_value(in_of(v)) : fallback;
}

double js_real(const struct js *v, double fallback)
{
	return is(v, JS_REAL) || is(v, JS_INT) ? json_number_value(in_of(v)) : fallback;
}

bool js_bool(const struct js *v, bool fallback)
{
	return is(v, JS_BOOL) ? json_is_true(in_of(v)) : fallback;
}

bool js_each(const struct js *object, void **iter, const char **ret_key, const struct js **ret_value)
{
	if (!is(object, JS_OBJECT))
		return false;
	json_t *o = in_of(object);
	*iter = *iter == NULL ? json_object_iter(o) : json_object_iter_next(o, *iter);
	if (*iter == NULL)
		return false;
	*ret_key = json_object_iter_key(*iter);
	*ret_value = out_of(json_object_iter_value(*iter));
	return true;
}

/* --- building --- */

static struct js *made(json_t *v)
{
	return out_of(xcheck(v));
}

/* U+FFFD for every byte that begins no character; NUL too, since no reader of ours takes it. */
static void put_utf8(struct str text, struct buf *out)
{
	while (text.len > 0) {
		size_t step = str_utf8_step(text);
		if (step > 0)
			buf_append(out, text.data, step);
		else
			buf_puts(out, "\xef\xbf\xbd");
		step = step > 0 ? step : 1;
		text.data += step;
		text.len -= step;
	}
}

struct js *js_new_str(struct str text)
{
	if (str_is_utf8(text))
		return made(json_stringn_nocheck(text.len > 0 ? text.data : "", text.len));
	autovar(buf) clean = {0};
	put_utf8(text, &clean);
	return made(json_stringn_nocheck(clean.data, clean.len));
}

struct js *js_new_text(const char *text)
{
	return js_new_str(str_c(text));
}

struct js *js_new_object(void)
{
	return made(json_object());
}

struct js *js_new_array(void)
{
	return made(json_array());
}

struct js *js_new_int(int64_t value)
{
	return made(json_integer(value));
}

struct js *js_new_real(double value)
{
	json_t *v = json_real(value);

	return v != NULL ? out_of(v) : js_new_null(); /* JSON has no NaN and no infinity */
}

struct js *js_new_bool(bool value)
{
	return made(json_boolean(value));
}

struct js *js_new_null(void)
{
	return made(json_null());
}

struct js *js_copy(const struct js *v)
{
	return made(json_deep_copy(in_of(v)));
}

static void must(int rc)
{
	if (rc != 0)
		out_of_memory();
}

void js_set(struct js *object, const char *key, struct js *value)
{
	if (str_is_utf8(str_c(key))) {
		must(json_object_set_new_nocheck(in_of(object), key, in_of(value)));
		return;
	}
	autovar(buf) clean = {0};
	put_utf8(str_c(key), &clean);
	must(json_object_set_new_nocheck(in_of(object), clean.data, in_of(value)));
}

void js_push(struct js *array, struct js *value)
{
	must(json_array_append_new(in_of(array), in_of(value)));
}

static struct js *new_time(int64_t unix_ns)
{
	char text[CLOCK_TEXT_SIZE];

	return unix_ns != 0 ? js_new_text(clock_format(unix_ns, text)) : js_new_null();
}

void js_set_time(struct js *object, const char *key, int64_t unix_ns)
{
	js_set(object, key, new_time(unix_ns));
}

/* --- decoding by shape --- */

/* Where in the document we are: a chain on the stack, written out only when there is something to complain of. */
struct place {
	const struct place *up;
	const char *name; /* NULL: an element of a list */
	size_t index;
};

static void put_place(const struct place *place, struct buf *out)
{
	if (place->up != NULL) {
		put_place(place->up, out);
		buf_putc(out, '.');
	}
	if (place->name != NULL)
		buf_puts(out, place->name);
	else
		buf_printf(out, "%zu", place->index);
}

static int refuse(const struct place *place, struct err *err, const char *fmt, ...) printf_like(3, 4);
static int refuse(const struct place *place, struct err *err, const char *fmt, ...)
{
	autovar(buf) message = {0};
	va_list args;

	put_place(place, &message);
	buf_puts(&message, ": ");
	va_start(args, fmt);
	buf_vprintf(&message, fmt, args);
	va_end(args);
	return err_set(err, ERR_INVALID_FIELD, "%s", message.data);
}

/* Everything a reader of one field needs; `to` is the struct's member. */
struct slot {
	const struct js_field *field;
	const struct js *v;
	const struct place *place;
	struct arena *arena;
	void *to;
};

static int read_shape(const struct js *v, const struct js_shape *shape, const struct place *place, struct arena *arena,
		      void *ret, struct err *err);

static int take_text(const struct js *v, int64_t max, const struct place *place, struct arena *arena, const char **ret,
		     struct err *err)
{
	size_t most = max > 0 ? (size_t)max : TEXT_MAX_BYTES;

	if (!is(v, JS_STRING))
		return refuse(place, err, "must be text");
	struct str text = {json_string_value(in_of(v)), json_string_length(in_of(v))};
	if (text.len > most)
		return refuse(place, err, "must be at most %zu bytes, is %zu", most, text.len);
	*ret = arena_str(arena, text);
	return 0;
}

static int read_text(const struct slot *s, struct err *err)
{
	return take_text(s->v, s->field->max, s->place, s->arena, s->to, err);
}

static int check_range(const struct slot *s, double value, struct err *err)
{
	const struct js_field *f = s->field;

	if (f->max != 0 && (value < (double)f->min || value > (double)f->max))
		return refuse(s->place, err, "must be from %" PRId64 " to %" PRId64, f->min, f->max);
	return 0;
}

static int read_i64(const struct slot *s, struct err *err)
{
	const struct js_field *f = s->field;
	int64_t value = js_int(s->v, 0);
	bool ok = is(s->v, JS_INT) || (is(s->v, JS_STRING) && str_to_i64(str_c(js_text(s->v, "")), "", INT64_MIN,
									 INT64_MAX, &value, NULL) == 0);

	if (!ok)
		return refuse(s->place, err, "must be a whole number");
	if (f->max != 0 && (value < f->min || value > f->max))
		return refuse(s->place, err, "must be from %" PRId64 " to %" PRId64, f->min, f->max);
	*(int64_t *)s->to = value;
	return 0;
}

static int read_bool(const struct slot *s, struct err *err)
{
	if (!is(s->v, JS_BOOL))
		return refuse(s->place, err, "must be true or false");
	*(bool *)s->to = js_bool(s->v, false);
	return 0;
}

static int read_real(const struct slot *s, struct err *err)
{
	if (!is(s->v, JS_REAL) && !is(s->v, JS_INT))
		return refuse(s->place, err, "must be a number");
	int rc = check_range(s, js_real(s->v, 0), err);
	if (rc == 0)
		*(double *)s->to = js_real(s->v, 0);
	return rc;
}

static int read_time(const struct slot *s, struct err *err)
{
	struct err inner = {0};

	if (!is(s->v, JS_STRING))
		return refuse(s->place, err, "must be a time like \"2026-11-21T12:40:00Z\"");
	if (clock_parse(str_c(js_text(s->v, "")), s->to, &inner) < 0)
		return refuse(s->place, err, "%s", inner.msg);
	return 0;
}

/* The number of items of a list that is not too long. */
static int take_count(const struct slot *s, enum js_type type, const char *what, size_t *ret, struct err *err)
{
	size_t most = s->field->max > 0 ? (size_t)s->field->max : LIST_MAX_ITEMS;

	if (!is(s->v, type))
		return refuse(s->place, err, "must be %s", what);
	size_t count = type == JS_ARRAY ? js_len(s->v) : json_object_size(in_of(s->v));
	if (count > most)
		return refuse(s->place, err, "must have at most %zu items, has %zu", most, count);
	*ret = count;
	return 0;
}

static int read_texts(const struct slot *s, struct err *err)
{
	struct js_texts texts = {0};

	int rc = take_count(s, JS_ARRAY, "a list of texts", &texts.count, err);
	if (rc < 0)
		return rc;
	texts.items = arena_calloc(s->arena, texts.count, sizeof(*texts.items));
	for (size_t i = 0; i < texts.count && rc == 0; i++) {
		struct place place = {.up = s->place, .index = i};
		rc = take_text(js_at(s->v, i), 0, &place, s->arena, &texts.items[i], err);
	}
	if (rc == 0)
		*(struct js_texts *)s->to = texts;
	return rc;
}

static int read_pairs(const struct slot *s, struct err *err)
{
	struct js_pairs pairs = {0};
	const struct js *value = NULL;
	const char *key = NULL;
	void *iter = NULL;
	size_t room = 0;

	int rc = take_count(s, JS_OBJECT, "an object of texts", &room, err);
	if (rc < 0)
		return rc;
	pairs.items = arena_calloc(s->arena, room, sizeof(*pairs.items));
	while (rc == 0 && js_each(s->v, &iter, &key, &value)) {
		struct js_pair *pair = &pairs.items[pairs.count++];
		struct place place = {.up = s->place, .name = key};
		pair->key = arena_strdup(s->arena, key);
		rc = take_text(value, 0, &place, s->arena, &pair->value, err);
	}
	if (rc == 0)
		*(struct js_pairs *)s->to = pairs;
	return rc;
}

static int read_object(const struct slot *s, struct err *err)
{
	return read_shape(s->v, s->field->shape, s->place, s->arena, s->to, err);
}

static int read_objects(const struct slot *s, struct err *err)
{
	const struct js_shape *shape = s->field->shape;
	struct js_objects objects = {0};

	int rc = take_count(s, JS_ARRAY, "a list of objects", &objects.count, err);
	if (rc < 0)
		return rc;
	objects.items = arena_calloc(s->arena, objects.count, shape->size);
	for (size_t i = 0; i < objects.count && rc == 0; i++) {
		struct place place = {.up = s->place, .index = i};
		rc = read_shape(js_at(s->v, i), shape, &place, s->arena, (char *)objects.items + i * shape->size, err);
	}
	if (rc == 0)
		*(struct js_objects *)s->to = objects;
	return rc;
}

static int read_any(const struct slot *s, struct err *err)
{
	(void)err;
	*(const struct js **)s->to = s->v;
	return 0;
}

static int (*const readers[])(const struct slot *s, struct err *err) = {
	[JS_FIELD_TEXT] = read_text,   [JS_FIELD_I64] = read_i64,	[JS_FIELD_BOOL] = read_bool,
	[JS_FIELD_REAL] = read_real,   [JS_FIELD_TIME] = read_time,	[JS_FIELD_TEXTS] = read_texts,
	[JS_FIELD_PAIRS] = read_pairs, [JS_FIELD_OBJECT] = read_object, [JS_FIELD_OBJECTS] = read_objects,
	[JS_FIELD_ANY] = read_any,
};

static int read_shape(const struct js *v, const struct js_shape *shape, const struct place *place, struct arena *arena,
		      void *ret, struct err *err)
{
	memset(ret, 0, shape->size);
	if (!is(v, JS_OBJECT))
		return place != NULL ? refuse(place, err, "must be an object")
				     : err_set(err, ERR_INVALID_FIELD, "must be a JSON object");
	for (size_t i = 0; i < shape->count; i++) {
		const struct js_field *f = &shape->fields[i];
		struct place here = {.up = place, .name = f->name};
		struct slot slot = {f, js_get(v, f->name), &here, arena, (char *)ret + f->offset};
		bool absent = slot.v == NULL || is(slot.v, JS_NULL);
		if (absent && (f->flags & JS_REQUIRED) != 0)
			return refuse(&here, err, "is required");
		int rc = absent ? 0 : readers[f->type](&slot, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int js_decode(const struct js *v, const struct js_shape *shape, struct arena *arena, void *ret, struct err *err)
{
	return read_shape(v, shape, NULL, arena, ret, err);
}

/* --- encoding by shape: each writer gives NULL for a value that counts as empty --- */

static struct js *write_text(const struct js_field *f, const void *from)
{
	const char *text = *(const char *const *)from;

	(void)f;
	return text != NULL ? js_new_text(text) : NULL;
}

static struct js *write_i64(const struct js_field *f, const void *from)
{
	int64_t value = *(const int64_t *)from;

	return value != 0 || (f->flags & (JS_OMIT_EMPTY | JS_NULL_ZERO)) == 0 ? js_new_int(value) : NULL;
}

static struct js *write_bool(const struct js_field *f, const void *from)
{
	bool value = *(const bool *)from;

	return value || (f->flags & JS_OMIT_EMPTY) == 0 ? js_new_bool(value) : NULL;
}

static struct js *write_real(const struct js_field *f, const void *from)
{
	double value = *(const double *)from;
	bool zero = value >= 0 && value <= 0;

	return !zero || (f->flags & (JS_OMIT_EMPTY | JS_NULL_ZERO)) == 0 ? js_new_real(value) : NULL;
}

static struct js *write_time(const struct js_field *f, const void *from)
{
	int64_t at = *(const int64_t *)from;

	(void)f;
	return at != 0 ? new_time(at) : NULL;
}

static bool omitted(const struct js_field *f, size_t count)
{
	return count == 0 && (f->flags & JS_OMIT_EMPTY) != 0;
}

static struct js *write_texts(const struct js_field *f, const void *from)
{
	const struct js_texts *texts = from;

	if (omitted(f, texts->count))
		return NULL;
	struct js *list = js_new_array();
	for (size_t i = 0; i < texts->count; i++)
		js_push(list, js_new_text(texts->items[i]));
	return list;
}

static struct js *write_pairs(const struct js_field *f, const void *from)
{
	const struct js_pairs *pairs = from;

	if (omitted(f, pairs->count))
		return NULL;
	struct js *object = js_new_object();
	for (size_t i = 0; i < pairs->count; i++)
		js_set(object, pairs->items[i].key, js_new_text(pairs->items[i].value));
	return object;
}

static struct js *write_object(const struct js_field *f, const void *from)
{
	return js_encode(f->shape, from);
}

static struct js *write_objects(const struct js_field *f, const void *from)
{
	const struct js_objects *objects = from;

	if (omitted(f, objects->count))
		return NULL;
	struct js *list = js_new_array();
	for (size_t i = 0; i < objects->count; i++)
		js_push(list, js_encode(f->shape, (const char *)objects->items + i * f->shape->size));
	return list;
}

static struct js *write_any(const struct js_field *f, const void *from)
{
	const struct js *v = *(const struct js *const *)from;

	(void)f;
	return v != NULL ? js_copy(v) : NULL;
}

static struct js *(*const writers[])(const struct js_field *f, const void *from) = {
	[JS_FIELD_TEXT] = write_text,	[JS_FIELD_I64] = write_i64,	  [JS_FIELD_BOOL] = write_bool,
	[JS_FIELD_REAL] = write_real,	[JS_FIELD_TIME] = write_time,	  [JS_FIELD_TEXTS] = write_texts,
	[JS_FIELD_PAIRS] = write_pairs, [JS_FIELD_OBJECT] = write_object, [JS_FIELD_OBJECTS] = write_objects,
	[JS_FIELD_ANY] = write_any,
};

struct js *js_encode(const struct js_shape *shape, const void *from)
{
	struct js *object = js_new_object();

	for (size_t i = 0; i < shape->count; i++) {
		const struct js_field *f = &shape->fields[i];
		struct js *v = writers[f->type](f, (const char *)from + f->offset);
		if (v != NULL)
			js_set(object, f->name, v);
		else if ((f->flags & JS_OMIT_EMPTY) == 0)
			js_set(object, f->name, js_new_null());
	}
	return object;
}
