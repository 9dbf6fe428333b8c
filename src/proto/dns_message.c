#include "proto/dns_message.h"

#include <string.h>

enum { FLAG_ANSWER = 0x80, OPCODE = 0x78, FLAG_CUT = 0x02, LABEL_MAX = 63, QUESTION_TAIL = 4 };
enum { FLAG_WANTS_RECURSION = 0x01, FLAG_RECURSION = 0x80 };

static unsigned byte_at(struct str s, size_t at)
{
	return (unsigned char)s.data[at];
}

static unsigned number_at(struct str s, size_t at)
{
	return byte_at(s, at) << 8 | byte_at(s, at + 1);
}

/* Behind the first question; 0 where there is none. A question of ours has no pointers. */
static size_t question_end(struct str message)
{
	size_t at = DNS_HEADER_SIZE;

	while (at < message.len && byte_at(message, at) != 0) {
		if (byte_at(message, at) > LABEL_MAX)
			return 0;
		at += byte_at(message, at) + 1;
	}
	at += 1 + QUESTION_TAIL;
	return at <= message.len ? at : 0;
}

bool dns_is_query(struct str message)
{
	return message.len >= DNS_HEADER_SIZE && message.len <= DNS_QUERY_MAX &&
	       (byte_at(message, 2) & (FLAG_ANSWER | OPCODE)) == 0 && number_at(message, 4) == 1 &&
	       question_end(message) != 0;
}

bool dns_is_answer(struct str answer, struct str query)
{
	return answer.len >= DNS_HEADER_SIZE && (byte_at(answer, 2) & FLAG_ANSWER) != 0 &&
	       number_at(answer, 0) == number_at(query, 0);
}

/* The head and the question, and no more. */
static char *begin_answer(struct str head, struct str query, struct buf *out)
{
	size_t start = out->len;

	buf_append(out, head.data, DNS_HEADER_SIZE);
	buf_append(out, query.data + DNS_HEADER_SIZE, question_end(query) - DNS_HEADER_SIZE);
	memset(out->data + start + 4, 0, DNS_HEADER_SIZE - 4);
	out->data[start + 5] = 1; /* one question */
	return out->data + start;
}

void dns_fit(struct str answer, struct str query, struct buf *out)
{
	bool extended = number_at(query, 10) > 0; /* what stands there is OPT: nothing else does in a query */

	if (answer.len <= (size_t)(extended ? DNS_EXTENDED_MAX : DNS_PLAIN_MAX)) {
		buf_append_str(out, answer);
		return;
	}
	char *at = begin_answer(answer, query, out);
	at[2] = (char)(at[2] | FLAG_CUT);
}

unsigned dns_type(struct str query)
{
	return number_at(query, question_end(query) - QUESTION_TAIL);
}

void dns_nothing(struct str query, struct buf *out)
{
	char *at = begin_answer(query, query, out);

	at[2] = (char)(FLAG_ANSWER | (at[2] & FLAG_WANTS_RECURSION));
	at[3] = (char)FLAG_RECURSION; /* and no error */
}
