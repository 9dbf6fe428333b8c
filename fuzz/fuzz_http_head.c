/* A request's head, laid out as the library leaves it: lines ended by NULs, names and values cut at the colon. */
#include <assert.h>

#include "base/mem.h"
#include "fuzz.h"
#include "net/http_head.h"

/* As libmicrohttpd cuts: a line ends at CR LF or LF, both overwritten. NULL: no whole line is left. */
static char *next_line(char **at, char *end)
{
	char *line = *at;
	char *lf = memchr(line, '\n', (size_t)(end - line));

	if (lf == NULL)
		return NULL;
	*at = lf + 1;
	if (lf > line && lf[-1] == '\r')
		lf[-1] = '\0';
	*lf = '\0';
	return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autofree char *head = xmalloc(size + 1);
	struct http_head h = {0};
	struct err err = {0};

	if (size > 0)
		memcpy(head, data, size);
	head[size] = '\0';
	char *at = head;
	char *end = head + size;
	char *line = next_line(&at, end);
	char *target = line != NULL ? strchr(line, ' ') : NULL;
	char *version = target != NULL ? strrchr(target + 1, ' ') : NULL;
	if (version == NULL)
		return 0;
	*target++ = '\0';
	*version++ = '\0';
	autofree char *copy = xstrdup(target);
	http_head_line(&h, line, target, str_c(copy), version);
	while ((line = next_line(&at, end)) != NULL && line[0] != '\0') {
		char *colon = strchr(line, ':');
		if (colon == NULL)
			return 0;
		*colon++ = '\0';
		colon += strspn(colon, " \t");
		http_head_field(&h, str_c(line), str_c(colon));
	}
	if (line != NULL && http_head_check(&h, (size_t)(at - head), str_c(copy), &err) == 0)
		assert(h.lengths + h.codings <= 1 && h.hosts <= 1 && memchr(head, '\n', (size_t)(at - head)) == NULL);
	return 0;
}
