#include "auth/scope.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const op_names[] = {
	[SCOPE_PULL] = "pull",
	[SCOPE_PUSH] = "push",
};

/* The words that the Python Nimbus used for a whole organisation, and newer services' "read:org-N". */
static bool is_legacy(struct str word, enum scope_op op)
{
	return str_eq(word, STR("read_write")) || str_eq(word, op == SCOPE_PULL ? STR("read") : STR("write"));
}

static bool is_for(struct str word, const char *verb, int64_t org_id, const char *repo)
{
	char want[320];
	int len = repo == NULL ? snprintf(want, sizeof(want), "%s:org-%" PRId64, verb, org_id)
			       : snprintf(want, sizeof(want), "%s:org-%" PRId64 "/%s", verb, org_id, repo);

	return len > 0 && (size_t)len < sizeof(want) && str_eq(word, (struct str){want, (size_t)len});
}

bool scope_allows(struct str scopes, enum scope_op op, int64_t org_id, const char *repo)
{
	struct str rest = scopes;

	if (org_id <= 0)
		return false;
	while (rest.data != NULL) {
		struct str word = str_trim(str_cut(&rest, ','));

		if (is_legacy(word, op) || is_for(word, op_names[op], org_id, NULL) ||
		    (repo != NULL && is_for(word, op_names[op], org_id, repo)) ||
		    (op == SCOPE_PULL && is_for(word, "read", org_id, NULL)))
			return true;
	}
	return false;
}

bool scope_has(struct str scopes, const char *word)
{
	struct str rest = scopes;

	while (rest.data != NULL)
		if (str_eq(str_trim(str_cut(&rest, ',')), str_c(word)))
			return true;
	return false;
}

void scope_append(struct buf *scopes, enum scope_op op, int64_t org_id, const char *repo)
{
	if (scopes->len > 0)
		buf_putc(scopes, ',');
	buf_printf(scopes, "%s:org-%" PRId64, op_names[op], org_id);
	if (repo != NULL)
		buf_printf(scopes, "/%s", repo);
}
