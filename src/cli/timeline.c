#include "cli/timeline.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/terminal.h"
#include "base/width.h"
#include "cli/state_style.h"
#include "model/job_state.h"

enum { BAR_COLUMNS = 36, NAME_COLUMNS = 9, TOOK_COLUMNS = 10 };

static const struct {
	const char *state;
	const char *name;
} names[] = {{"leased", "leased"}, {"starting", "VM start"}, {"running", "running"}};

static const char *name_of(const char *state)
{
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(state, names[i].state) == 0)
			return names[i].name;
	return state;
}

static bool is_final(const char *state)
{
	enum job_state parsed = JOB_QUEUED;

	return job_state_parse(str_c(state), &parsed, NULL) == 0 && job_state_final(parsed);
}

static bool time_of(const struct js *row, int64_t *ret)
{
	return clock_parse(str_c(js_text(js_get(row, "at"), "")), ret, NULL) == 0;
}

static void add(struct timeline *t, const struct phase *phase)
{
	if (t->count == TIMELINE_MAX) {
		memmove(t->phases, t->phases + 1, (TIMELINE_MAX - 1) * sizeof(t->phases[0]));
		t->count--;
	}
	t->phases[t->count++] = *phase;
}

/* The move out of a state names the agent that had the job; of one that goes on, nobody has said it. */
void timeline_make(const struct js *history, int64_t now_at, struct timeline *ret)
{
	size_t rows = js_len(history);

	*ret = (struct timeline){0};
	for (size_t i = 0; i < rows; i++) {
		const struct js *row = js_at(history, i);
		const struct js *next = i + 1 < rows ? js_at(history, i + 1) : NULL;
		const char *state = js_text(js_get(row, "to"), "");
		struct phase p = {.name = name_of(state), .to_at = now_at, .goes_on = next == NULL};

		if (!time_of(row, &p.from_at))
			continue;
		if (ret->from_at == 0)
			ret->from_at = p.from_at;
		ret->to_at = p.from_at;
		if (is_final(state))
			break;
		if (next != NULL && !time_of(next, &p.to_at))
			continue;
		p.to_at = p.to_at > p.from_at ? p.to_at : p.from_at;
		p.attempt = js_int(js_get(row, "attempt"), 0);
		p.agent_id = js_text(js_get(next != NULL ? next : row, "agent_id"), NULL);
		p.ended_by = next != NULL ? js_text(js_get(next, "reason"), NULL) : NULL;
		ret->to_at = p.to_at;
		add(ret, &p);
	}
}

void put_duration(int64_t ns, struct buf *out)
{
	int64_t s = ns / NS_PER_S;

	if (ns < NS_PER_MS)
		buf_printf(out, "%" PRId64 " us", ns / NS_PER_US);
	else if (ns < NS_PER_S)
		buf_printf(out, "%" PRId64 " ms", ns / NS_PER_MS);
	else if (s < 60)
		buf_printf(out, "%" PRId64 ".%02" PRId64 " s", s, ns % NS_PER_S / (10 * NS_PER_MS));
	else if (s < 3600)
		buf_printf(out, "%" PRId64 " m %02" PRId64 " s", s / 60, s % 60);
	else
		buf_printf(out, "%" PRId64 " h %02" PRId64 " m", s / 3600, s % 3600 / 60);
}

static void pad(struct buf *out, size_t from, size_t columns)
{
	size_t width = width_of_text((struct str){out->data + from, out->len - from});

	for (; width < columns; width++)
		buf_putc(out, ' ');
}

/* A history whose clock went backwards may lie outside of its own span. */
static int column_of(const struct timeline *t, int64_t at, int least, int most)
{
	double whole = t->to_at > t->from_at ? (double)(t->to_at - t->from_at) : 1;
	double column = (double)(at - t->from_at) / whole * BAR_COLUMNS;

	if (column < least)
		return least;
	return column < most ? (int)column : most;
}

/* Where in the whole it lies, at least a column wide. */
static void put_bar(const struct timeline *t, const struct phase *p, const struct screen *screen, struct buf *out)
{
	int first = column_of(t, p->from_at, 0, BAR_COLUMNS - 1);
	int last = column_of(t, p->to_at, first + 1, BAR_COLUMNS);
	autovar(buf) bar = {0};

	for (int i = 0; i < first; i++)
		buf_putc(out, ' ');
	for (int i = first; i < last; i++)
		buf_puts(&bar, "\xe2\x96\x88"); /* a full block */
	screen_put(screen, strcmp(p->name, "running") == 0 ? STYLE_GOOD : STYLE_BUSY, bar.data, out);
	for (int i = last; i < BAR_COLUMNS; i++)
		buf_putc(out, ' ');
	buf_puts(out, "  ");
}

/* An agent may have said it. */
static void put_word(const char *word, struct buf *out)
{
	if (word == NULL)
		return;
	buf_puts(out, ", ");
	(void)terminal_clean(str_c(word), false, out);
}

static void put_phase(const struct timeline *t, const struct phase *p, const struct screen *screen, struct buf *out)
{
	char at[CLOCK_TEXT_SIZE];

	if (!screen->tty)
		buf_printf(out, "%s  ", clock_format(p->from_at, at));
	size_t start = out->len;
	buf_puts(out, p->name);
	pad(out, start, NAME_COLUMNS + 2);
	start = out->len;
	put_duration(p->to_at - p->from_at, out);
	pad(out, start, TOOK_COLUMNS + 2);
	if (screen->tty)
		put_bar(t, p, screen, out);
	buf_printf(out, "attempt %" PRId64, p->attempt);
	put_word(p->agent_id, out);
	put_word(p->ended_by, out);
	if (p->goes_on)
		buf_puts(out, ", goes on");
	buf_putc(out, '\n');
}

void timeline_put(const struct timeline *t, const struct screen *screen, struct buf *out)
{
	for (size_t i = 0; i < t->count; i++)
		put_phase(t, &t->phases[i], screen, out);
	if (t->count == 0)
		return;
	buf_puts(out, "in all     ");
	if (!screen->tty)
		buf_puts(out, "                    ");
	put_duration(t->to_at - t->from_at, out);
	buf_putc(out, '\n');
}

static struct js *text_or_null(const char *text)
{
	return text != NULL ? js_new_text(text) : js_new_null();
}

struct js *timeline_js(const struct timeline *t)
{
	struct js *list = js_new_array();

	for (size_t i = 0; i < t->count; i++) {
		const struct phase *p = &t->phases[i];
		struct js *o = js_new_object();
		js_set(o, "phase", js_new_text(p->name));
		js_set_time(o, "from", p->from_at);
		js_set_time(o, "to", p->goes_on ? 0 : p->to_at);
		js_set(o, "milliseconds", js_new_int((p->to_at - p->from_at) / NS_PER_MS));
		js_set(o, "attempt", js_new_int(p->attempt));
		js_set(o, "agent_id", text_or_null(p->agent_id));
		js_set(o, "ended_by", text_or_null(p->ended_by));
		js_push(list, o);
	}
	return list;
}
