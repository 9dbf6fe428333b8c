/* A body of POST /logs. What is accepted is encoded, and must be accepted again as the same lines. */
#include <assert.h>

#include "fuzz.h"
#include "proto/log_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoptr(arena) arena = arena_new();
	autovar(buf) body = {0};
	struct log_batch batch = {0};
	struct log_batch again = {0};

	if (log_batch_decode((struct str){(const char *)data, size}, arena, &batch, NULL) < 0 || batch.count == 0)
		return 0;
	for (size_t i = 0; i < batch.count; i++)
		log_line_encode(&batch.lines[i], &body);
	int rc = log_batch_decode(buf_str(&body), arena, &again, NULL);
	assert(rc == 0 && again.count == batch.count);
	for (size_t i = 0; i < batch.count; i++) {
		assert(str_eq(again.lines[i].message, batch.lines[i].message));
		assert(again.lines[i].seq == batch.lines[i].seq && again.lines[i].job_id == batch.lines[i].job_id);
	}
	return 0;
}
