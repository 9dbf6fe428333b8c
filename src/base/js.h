/*
 * JSON (RFC 8259): the wrapper of jansson. The prefix is js_, because json_ is the library's own.
 *
 * Reading is bounded in depth, refuses duplicate keys, NUL and bytes that are not UTF-8. Integers are int64_t.
 * A js value owns what is put into it; js_free() releases the whole tree.
 *
 * Most messages are read and written by a shape: a table that says, once, which member of a struct is which
 * field of an object. The same table decodes (with messages that name the field), encodes, and documents.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct js;

enum js_type { JS_NULL, JS_BOOL, JS_INT, JS_REAL, JS_STRING, JS_ARRAY, JS_OBJECT };

/* ERR_INVALID with line and column. At most 64 levels deep, at most 1,048,576 values. */
int js_parse(struct str text, struct js **ret, struct err *err) must_check;
void js_free(struct js *v);
AUTOPTR_DEFINE(js)

/* Compact, keys in the order they were put. */
void js_write(const struct js *v, struct buf *out);
void js_write_pretty(const struct js *v, struct buf *out);
/* Compact with sorted keys: what signatures and thumbprints are taken over. */
void js_write_sorted(const struct js *v, struct buf *out);

enum js_type js_type(const struct js *v);
/* Borrowed; NULL where v is no object, has no such key, or is NULL itself: look-ups chain. */
const struct js *js_get(const struct js *v, const char *key);
size_t js_len(const struct js *array);
const struct js *js_at(const struct js *array, size_t index);
/* The fallback where v is NULL or of another type. Text is borrowed, NUL-terminated. */
const char *js_text(const struct js *v, const char *fallback);
int64_t js_int(const struct js *v, int64_t fallback);
double js_real(const struct js *v, double fallback);
bool js_bool(const struct js *v, bool fallback);
/* Walks an object: start with *iter = NULL; false at the end. */
bool js_each(const struct js *object, void **iter, const char **ret_key, const struct js **ret_value);

struct js *js_new_object(void) must_check;
struct js *js_new_array(void) must_check;
struct js *js_new_text(const char *text) must_check; /* bytes that are not UTF-8 become U+FFFD */
struct js *js_new_str(struct str text) must_check;
struct js *js_new_int(int64_t value) must_check;
struct js *js_new_real(double value) must_check;
struct js *js_new_bool(bool value) must_check;
struct js *js_new_null(void) must_check;
struct js *js_copy(const struct js *v) must_check;
/* Both take `value`. */
void js_set(struct js *object, const char *key, struct js *value);
void js_push(struct js *array, struct js *value);
/* RFC 3339 text; null for 0. */
void js_set_time(struct js *object, const char *key, int64_t unix_ns);

/* --- shapes --- */

enum js_field_type {
	JS_FIELD_TEXT,	  /* const char *; NULL when absent */
	JS_FIELD_I64,	  /* int64_t; a string of digits is taken too, as the Python Nimbus did */
	JS_FIELD_BOOL,	  /* bool */
	JS_FIELD_REAL,	  /* double */
	JS_FIELD_TIME,	  /* int64_t Unix ns as RFC 3339 text; 0 when absent or null */
	JS_FIELD_TEXTS,	  /* struct js_texts */
	JS_FIELD_PAIRS,	  /* struct js_pairs: an object of strings */
	JS_FIELD_OBJECT,  /* an embedded struct with its own shape; zeros when absent */
	JS_FIELD_OBJECTS, /* struct js_objects: an array of structs with their own shape */
	JS_FIELD_ANY,	  /* const struct js *, borrowed from the parsed tree */
};

struct js_texts {
	const char **items;
	size_t count;
};

struct js_pair {
	const char *key;
	const char *value;
};

struct js_pairs {
	struct js_pair *items;
	size_t count;
};

struct js_objects {
	void *items; /* count structs of shape->size */
	size_t count;
};

enum js_field_flags {
	JS_REQUIRED = 1,   /* absent or null is an error */
	JS_OMIT_EMPTY = 2, /* not written when NULL, 0, false or empty */
	JS_NULL_ZERO = 4,  /* a zero number is written as null */
};

struct js_field {
	const char *name;
	enum js_field_type type;
	unsigned flags;
	size_t offset;
	int64_t min; /* numbers: least value. With max == 0, any. */
	int64_t max; /* numbers: greatest value. Text: most bytes (0: 65,536). Lists: most items (0: 1,024). */
	const struct js_shape *shape;
};

struct js_shape {
	const struct js_field *fields;
	size_t count;
	size_t size; /* sizeof the struct */
};

#define JS_SHAPE(struct_type, table)                                                      \
	{                                                                                 \
		.fields = (table), .count = ARRAY_LEN(table), .size = sizeof(struct_type) \
	}

/* Fills *ret (zeroed first) with values in `arena`; unknown fields are ignored. ERR_INVALID_FIELD names the field, with
 * its path: "files.0.name: ...". */
int js_decode(const struct js *v, const struct js_shape *shape, struct arena *arena, void *ret, struct err *err)
	must_check;
struct js *js_encode(const struct js_shape *shape, const void *from) must_check;
