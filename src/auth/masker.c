#include "auth/masker.h"

#include <string.h>

#include "base/encoding.h"
#include "base/mem.h"
#include "base/secret.h"

/*
 * The patterns form a trie whose nodes also know their longest proper suffix that is in the trie (`fail`). A node's
 * depth is how much of the text's end it stands for; where it, or else its longest suffix, can go on, that much has to
 * be held back. Children are a list, not a table of 256, so that a long key in all its forms costs kilobytes and not
 * megabytes.
 */
struct node {
	int32_t child;	 /* first; 0: none, as the root is nobody's child */
	int32_t sibling; /* next; 0: none */
	int32_t fail;
	uint32_t depth;
	uint32_t hold;	/* how much of the text's end may yet become a match */
	uint32_t match; /* length of the longest pattern that ends here; 0: none */
	unsigned char byte;
};

struct masker {
	struct node *nodes; /* [0] is the root */
	size_t count;
	size_t cap;
	int32_t first[256]; /* the root's children, by byte */
	size_t values;
	uint64_t generation; /* grows with every value added */
	uint64_t work;	     /* of link_nodes(), in steps */
	bool linked;	     /* fail and match are up to date */
};

struct masker_stream {
	struct masker *masker;
	uint64_t generation; /* of the masker, when `node` was reached */
	int32_t node;
	struct buf held;  /* bytes not given out yet */
	struct buf marks; /* one per held byte: 1 = part of a secret */
	bool in_mask;	  /* the last byte given out was part of a secret */
};

static const char mask[] = "***";

struct masker *masker_new(void)
{
	struct masker *m = xcalloc(1, sizeof(*m));

	m->cap = 64;
	m->nodes = xcalloc(m->cap, sizeof(*m->nodes));
	m->count = 1;
	m->linked = true;
	return m;
}

void masker_free(struct masker *m)
{
	if (m == NULL)
		return;
	/* The trie spells the secrets. */
	secret_wipe(m->nodes, m->cap * sizeof(*m->nodes));
	free(m->nodes);
	free(m);
}

static int32_t child_of(const struct masker *m, int32_t node, unsigned char byte)
{
	if (node == 0)
		return m->first[byte];
	for (int32_t c = m->nodes[node].child; c != 0; c = m->nodes[c].sibling)
		if (m->nodes[c].byte == byte)
			return c;
	return 0;
}

static void grow(struct masker *m)
{
	struct node *old = m->nodes;

	m->nodes = xcalloc(m->cap * 2, sizeof(*m->nodes));
	memcpy(m->nodes, old, m->count * sizeof(*old));
	secret_wipe(old, m->cap * sizeof(*old));
	free(old);
	m->cap *= 2;
}

static int32_t add_child(struct masker *m, int32_t parent, unsigned char byte)
{
	int32_t c = (int32_t)m->count;

	if (m->count == m->cap)
		grow(m);
	m->count++;
	m->nodes[c] = (struct node){
		.sibling = m->nodes[parent].child,
		.depth = m->nodes[parent].depth + 1,
		.byte = byte,
	};
	m->nodes[parent].child = c;
	if (parent == 0)
		m->first[byte] = c;
	return c;
}

/* A form shorter than the least value would mask ordinary words. */
static int add_form(struct masker *m, struct str form, struct err *err)
{
	int32_t node = 0;

	if (form.len < MASKER_VALUE_MIN)
		return 0;
	if (form.len > MASKER_NODES_MAX - m->count)
		return err_set(err, ERR_LIMIT, "mask a value: more than %d bytes of patterns", MASKER_NODES_MAX);
	for (size_t i = 0; i < form.len; i++) {
		unsigned char byte = (unsigned char)form.data[i];
		int32_t next = child_of(m, node, byte);

		node = next != 0 ? next : add_child(m, node, byte);
	}
	m->nodes[node].match = m->nodes[node].depth;
	m->linked = false;
	return 0;
}

/* Base64 of the value where it stands `shift` bytes into a group of three: the characters that depend on it alone. */
static int add_base64(struct masker *m, struct str value, size_t shift, void (*encode)(struct str, struct buf *),
		      struct err *err)
{
	static const size_t shared[] = {0, 2, 3}; /* leading characters that hold bits of what stands before */
	autovar(buf) padded = {0};
	autovar(buf) text = {0};
	size_t whole = (shift + value.len) * 8 / 6;
	int r;

	buf_append(&padded, "\0\0", shift);
	buf_append_str(&padded, value);
	encode(buf_str(&padded), &text);
	r = add_form(m, (struct str){text.data + shared[shift], whole - shared[shift]}, err);
	if (r == 0 && shift == 0)
		r = add_form(m, buf_str(&text), err);
	secret_wipe(padded.data, padded.len);
	secret_wipe(text.data, text.len);
	return r;
}

static int add_base64_forms(struct masker *m, struct str value, struct err *err)
{
	for (size_t shift = 0; shift < 3; shift++) {
		int r = add_base64(m, value, shift, encode_base64, err);

		if (r == 0)
			r = add_base64(m, value, shift, encode_base64url, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static void write_hex(struct str value, const char *digits, struct buf *out)
{
	for (size_t i = 0; i < value.len; i++) {
		buf_putc(out, digits[(unsigned char)value.data[i] >> 4]);
		buf_putc(out, digits[(unsigned char)value.data[i] & 15]);
	}
}

static const char lower[] = "0123456789abcdef";
static const char upper[] = "0123456789ABCDEF";

static int add_hex_forms(struct masker *m, struct str value, struct err *err)
{
	static const char *const cases[] = {lower, upper};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		autovar(buf) text = {0};
		int r;

		write_hex(value, cases[i], &text);
		r = add_form(m, buf_str(&text), err);
		secret_wipe(text.data, text.len);
		if (r < 0)
			return r;
	}
	return 0;
}

/* How different programs URL-encode. */
struct url_form {
	const char *plain; /* besides letters and digits */
	const char *digits;
	bool plus; /* a space is '+' */
};

static const struct url_form url_forms[] = {
	{"-._~", upper, false},			/* RFC 3986, curl, Go's PathEscape, jq @uri */
	{"-._~", lower, false},			/* the same, lower case */
	{"-._~", upper, true},			/* Python quote_plus, Go's QueryEscape */
	{"-._~/", upper, false},		/* Python quote */
	{"-._~!*'()", upper, false},		/* JavaScript encodeURIComponent */
	{"-._~!*'();/?:@&=+$,#", upper, false}, /* encodeURI */
	{"-._*", upper, true},			/* forms: URLSearchParams, Java */
};

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static void write_url(struct str value, const struct url_form *form, struct buf *out)
{
	for (size_t i = 0; i < value.len; i++) {
		char c = value.data[i];

		if (is_alnum(c) || (c != '\0' && strchr(form->plain, c) != NULL)) {
			buf_putc(out, c);
		} else if (c == ' ' && form->plus) {
			buf_putc(out, '+');
		} else {
			buf_putc(out, '%');
			write_hex((struct str){&value.data[i], 1}, form->digits, out);
		}
	}
}

static int add_url_forms(struct masker *m, struct str value, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(url_forms); i++) {
		autovar(buf) text = {0};
		int r;

		write_url(value, &url_forms[i], &text);
		r = add_form(m, buf_str(&text), err);
		secret_wipe(text.data, text.len);
		if (r < 0)
			return r;
	}
	return 0;
}

/* How different programs escape JSON. */
struct json_form {
	bool ascii; /* all but ASCII as \uXXXX: Python */
	bool html;  /* < > & as \uXXXX: Go */
	bool slash; /* \/: PHP */
};

static const struct json_form json_forms[] = {
	{false, false, false},
	{true, false, false},
	{false, true, false},
	{true, false, true},
};

static void write_unit(uint32_t unit, struct buf *out)
{
	buf_printf(out, "\\u%04x", unit);
}

/* The code point at *i of well-formed UTF-8; moves *i to its last byte. */
static uint32_t code_point(struct str value, size_t *i)
{
	unsigned char c = (unsigned char)value.data[*i];
	size_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
	uint32_t point = c & (0x3fU >> more);

	for (; more > 0; more--)
		point = point << 6 | ((unsigned char)value.data[++*i] & 0x3fU);
	return point;
}

static void write_json_ascii(struct str value, size_t *i, struct buf *out)
{
	uint32_t point = code_point(value, i);

	if (point < 0x10000) {
		write_unit(point, out);
		return;
	}
	write_unit(0xd800 + ((point - 0x10000) >> 10), out);
	write_unit(0xdc00 + ((point - 0x10000) & 0x3ff), out);
}

static void write_json(struct str value, const struct json_form *form, bool utf8, struct buf *out)
{
	static const char named[] = "\b\f\n\r\t\"\\";
	static const char names[] = "bfnrt\"\\";

	for (size_t i = 0; i < value.len; i++) {
		char c = value.data[i];
		const char *at = c != '\0' ? strchr(named, c) : NULL;

		if (at != NULL) {
			buf_putc(out, '\\');
			buf_putc(out, names[at - named]);
		} else if ((unsigned char)c < 0x20 || (form->html && (c == '<' || c == '>' || c == '&'))) {
			write_unit((unsigned char)c, out);
		} else if (c == '/' && form->slash) {
			buf_puts(out, "\\/");
		} else if ((unsigned char)c >= 0x80 && form->ascii && utf8) {
			write_json_ascii(value, &i, out);
		} else {
			buf_putc(out, c);
		}
	}
}

static int add_json_forms(struct masker *m, struct str value, struct err *err)
{
	bool utf8 = str_is_utf8(value);

	for (size_t i = 0; i < ARRAY_LEN(json_forms); i++) {
		autovar(buf) text = {0};
		int r;

		write_json(value, &json_forms[i], utf8, &text);
		r = add_form(m, buf_str(&text), err);
		secret_wipe(text.data, text.len);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_lines(struct masker *m, struct str value, struct err *err)
{
	struct str rest = value;

	while (rest.data != NULL) {
		struct str line = str_cut(&rest, '\n');
		int r;

		if (str_ends_with(line, STR("\r")))
			line.len--;
		r = add_form(m, line, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int masker_add(struct masker *m, struct str value, struct err *err)
{
	static int (*const forms[])(struct masker *, struct str, struct err *) = {
		add_form, add_lines, add_base64_forms, add_hex_forms, add_url_forms, add_json_forms,
	};

	/* A file's last newline is not part of what it says. */
	while (value.len > 0 && (value.data[value.len - 1] == '\n' || value.data[value.len - 1] == '\r'))
		value.len--;
	if (value.len < MASKER_VALUE_MIN)
		return MASKER_TOO_SHORT;
	if (m->work > MASKER_WORK_MAX)
		return err_set(err, ERR_LIMIT, "mask a value: those before it made too much work");
	if (m->values == MASKER_VALUES_MAX)
		return err_set(err, ERR_LIMIT, "mask a value: more than %d values", MASKER_VALUES_MAX);
	m->values++;
	m->generation++;
	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		int r = forms[i](m, value, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int32_t step(const struct masker *m, int32_t node, unsigned char byte)
{
	for (;;) {
		int32_t next = child_of(m, node, byte);

		if (next != 0 || node == 0)
			return next;
		node = m->nodes[node].fail;
	}
}

/* step(), and how many nodes it looked at. */
static int32_t step_counted(struct masker *m, int32_t node, unsigned char byte)
{
	for (;; node = m->nodes[node].fail) {
		int32_t next = node == 0 ? m->first[byte] : m->nodes[node].child;

		for (m->work++; node != 0 && next != 0 && m->nodes[next].byte != byte; m->work++)
			next = m->nodes[next].sibling;
		if (next != 0 || node == 0)
			return next;
	}
}

/* Breadth first, so that a node's fail is done before the node. */
static void link_nodes(struct masker *m)
{
	int32_t *order = xcalloc(m->count, sizeof(*order));
	size_t tail = 1; /* order[0] is the root */

	for (size_t head = 0; head < tail; head++) {
		int32_t parent = order[head];

		for (int32_t c = m->nodes[parent].child; c != 0; c = m->nodes[c].sibling) {
			struct node *n = &m->nodes[c];

			n->fail = parent == 0 ? 0 : step_counted(m, m->nodes[parent].fail, n->byte);
			/* A pattern's own end keeps its depth: it is longer than any of its suffixes. */
			if (n->match < n->depth)
				n->match = m->nodes[n->fail].match;
			n->hold = n->child != 0 ? n->depth : m->nodes[n->fail].hold;
			order[tail++] = c;
		}
	}
	free(order);
	m->linked = true;
}

struct masker_stream *masker_stream_new(struct masker *m)
{
	struct masker_stream *s = xcalloc(1, sizeof(*s));

	s->masker = m;
	s->generation = m->generation;
	return s;
}

void masker_stream_free(struct masker_stream *s)
{
	if (s == NULL)
		return;
	if (s->held.data != NULL)
		secret_wipe(s->held.data, s->held.cap);
	buf_fini(&s->held);
	buf_fini(&s->marks);
	free(s);
}

/* Runs the search over held bytes from `at` on, and marks what it finds. */
static void search(struct masker_stream *s, size_t at)
{
	const struct masker *m = s->masker;
	int32_t node = s->node;

	for (size_t i = at; i < s->held.len; i++) {
		size_t found;

		node = step(m, node, (unsigned char)s->held.data[i]);
		found = m->nodes[node].match;
		if (found > 0)
			memset(s->marks.data + i + 1 - found, 1, found);
	}
	s->node = node;
}

/* Gives out the first `count` held bytes, each run of marked ones as one mask. */
static void give(struct masker_stream *s, size_t count, struct buf *out)
{
	size_t i = 0;

	while (i < count) {
		size_t start = i;
		bool marked = s->marks.data[i] != 0;

		while (i < count && (s->marks.data[i] != 0) == marked)
			i++;
		if (!marked)
			buf_append(out, s->held.data + start, i - start);
		else if (!s->in_mask)
			buf_puts(out, mask);
		s->in_mask = marked;
	}
	buf_consume(&s->held, count);
	buf_consume(&s->marks, count);
}

void masker_feed(struct masker_stream *s, struct str in, struct buf *out)
{
	struct masker *m = s->masker;
	size_t at = s->held.len;

	if (in.len == 0)
		return;
	if (!m->linked)
		link_nodes(m);
	if (s->generation != m->generation) {
		s->generation = m->generation;
		s->node = 0;
		at = 0;
	}
	buf_append_str(&s->held, in);
	memset(buf_reserve(&s->marks, in.len), 0, in.len);
	s->marks.len += in.len;
	search(s, at);
	give(s, s->held.len - m->nodes[s->node].hold, out);
}

void masker_flush(struct masker_stream *s, struct buf *out)
{
	give(s, s->held.len, out);
	s->node = 0;
	s->in_mask = false;
}

size_t masker_held(const struct masker_stream *s)
{
	return s->held.len;
}

void masker_apply(struct masker *m, struct str in, struct buf *out)
{
	autoptr(masker_stream) s = masker_stream_new(m);

	masker_feed(s, in, out);
	masker_flush(s, out);
}
