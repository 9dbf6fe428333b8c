#include "model/job_file.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "model/job_extras.h"

enum { UNIQUE_DIGITS = 16 };

static const char *const texts[JOB_FILE_KINDS] = {[JOB_FILE_INPUT] = "input", [JOB_FILE_OUTPUT] = "output"};
static const char *const in_names[JOB_FILE_KINDS] = {[JOB_FILE_INPUT] = "in", [JOB_FILE_OUTPUT] = "out"};

static bool find(const char *const words[static JOB_FILE_KINDS], struct str word, enum job_file_kind *ret)
{
	for (unsigned i = 0; i < JOB_FILE_KINDS; i++) {
		if (!str_eq(word, str_c(words[i])))
			continue;
		*ret = (enum job_file_kind)i;
		return true;
	}
	return false;
}

const char *job_file_kind_text(enum job_file_kind kind)
{
	assert(kind < JOB_FILE_KINDS);
	return texts[kind];
}

bool job_file_kind_parse(struct str text, enum job_file_kind *ret)
{
	return find(texts, text, ret);
}

void job_file_name(const struct job_file_place *place, uint64_t unique, char ret[static JOB_FILE_NAME_SIZE])
{
	(void)snprintf(ret, JOB_FILE_NAME_SIZE, "%" PRId64 "-%s-%" PRId64 "-%0*" PRIx64, place->job_id,
		       in_names[place->kind], place->n, UNIQUE_DIGITS, unique);
}

bool job_file_name_parse(struct str name, struct job_file_place *ret)
{
	struct str rest = name;
	struct str job_id = str_cut(&rest, '-');
	struct str kind = str_cut(&rest, '-');
	struct str n = str_cut(&rest, '-');
	struct job_file_place place;

	if (rest.len != UNIQUE_DIGITS || !find(in_names, kind, &place.kind) ||
	    str_to_i64(job_id, "job", 1, INT64_MAX, &place.job_id, NULL) < 0 ||
	    str_to_i64(n, "n", 0, JOB_FOLDERS_MAX, &place.n, NULL) < 0)
		return false;
	*ret = place;
	return true;
}

bool job_file_over(enum job_file_kind kind, const struct job_file_owner *owner, const struct job_file_rule *rule,
		   int64_t now)
{
	assert(kind < JOB_FILE_KINDS);
	bool wanted = kind == JOB_FILE_OUTPUT || owner->again;
	int64_t keep_ns = wanted ? rule->keep_ns[kind] : 0;

	if (!owner->known)
		return true;
	if (!job_state_final(owner->state))
		return false;
	return keep_ns == 0 || now - owner->completed_at >= keep_ns;
}
