#include "base/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_CELLS = 24 };
#define QUICK_NS (300 * NS_PER_MS)
#define REDRAW_NS (100 * NS_PER_MS)

const char *size_text(uint64_t bytes, char text[static SIZE_TEXT])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	double number = (double)bytes;
	size_t unit = 0;

	for (; number >= 1024 && unit + 1 < ARRAY_LEN(units); unit++)
		number /= 1024;
	(void)snprintf(text, SIZE_TEXT, unit == 0 ? "%.0f %s" : "%.1f %s", number, units[unit]);
	return text;
}

void progress_begin(struct progress *p, const char *what, uint64_t total, bool quiet)
{
	const char *term = getenv("TERM");
	bool dumb = term == NULL || strcmp(term, "dumb") == 0;

	*p = (struct progress){
		.what = what,
		.total = total,
		.quiet = quiet || dumb || isatty(STDERR_FILENO) != 1,
		.begun_ns = clock_monotonic_ns(),
	};
}

/* "[#####       ] 40%"; nothing where the whole is not known. */
static void make_bar(const struct progress *p, uint64_t done, char *text, size_t size)
{
	char cells[BAR_CELLS + 1];

	text[0] = '\0';
	if (p->total == 0)
		return;
	double part = done < p->total ? (double)done / (double)p->total : 1;
	size_t full = (size_t)(part * BAR_CELLS);
	for (size_t i = 0; i < BAR_CELLS; i++)
		cells[i] = i < full ? '#' : ' ';
	cells[BAR_CELLS] = '\0';
	(void)snprintf(text, size, " [%s] %3.0f %%", cells, part * 100);
}

void progress_line(const struct progress *p, uint64_t done, int64_t elapsed_ns, char text[static PROGRESS_LINE])
{
	char bar[64], size[SIZE_TEXT], speed[SIZE_TEXT], left[32] = "";
	double rate = elapsed_ns > 0 ? (double)done / ((double)elapsed_ns / (double)NS_PER_S) : 0;

	make_bar(p, done, bar, sizeof(bar));
	if (p->total > done && rate > 1)
		(void)snprintf(left, sizeof(left), ", %.0f s left", (double)(p->total - done) / rate);
	(void)snprintf(text, PROGRESS_LINE, "%s%s %s, %s/s%s", p->what, bar, size_text(done, size),
		       size_text((uint64_t)rate, speed), left);
}

void progress_at(struct progress *p, uint64_t done)
{
	char line[PROGRESS_LINE];
	int64_t now_ns = clock_monotonic_ns();

	if (p->quiet || now_ns - p->begun_ns < QUICK_NS || now_ns - p->drawn_ns < REDRAW_NS)
		return;
	progress_line(p, done, now_ns - p->begun_ns, line);
	(void)fprintf(stderr, "\r%s\x1b[K", line);
	(void)fflush(stderr);
	p->shown = true;
	p->drawn_ns = now_ns;
}

void progress_end(struct progress *p)
{
	if (p->shown)
		(void)fputs("\r\x1b[K", stderr);
	p->shown = false;
}
