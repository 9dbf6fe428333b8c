#include "control/db/label_rows.h"

#include "base/crypto.h"
#include "base/encoding.h"

/* The two tables, each matched against the other. */
struct side {
	const char *find;
	const char *insert;
	const char *others;
	const char *match; /* $1: an id of this side, $2: of the other */
	bool is_offer;
};

static const struct side sets = {
	.find = "SELECT id FROM label_set WHERE digest = $1",
	.insert = "INSERT INTO label_set (id, digest, labels) VALUES ($1, $2, $3)",
	.others = "SELECT id, labels FROM offer",
	.match = "INSERT INTO offer_match (label_set_id, offer_id) VALUES ($1, $2)",
};

static const struct side offers = {
	.find = "SELECT id FROM offer WHERE digest = $1",
	.insert = "INSERT INTO offer (id, digest, labels) VALUES ($1, $2, $3)",
	.others = "SELECT id, labels FROM label_set",
	.match = "INSERT INTO offer_match (offer_id, label_set_id) VALUES ($1, $2)",
	.is_offer = true,
};

static char *digest_of(const char *key, struct arena *arena)
{
	struct sha256 hash = crypto_sha256(str_c(key));
	autovar(buf) hex = {0};

	encode_hex((struct str){(const char *)hash.bytes, sizeof(hash.bytes)}, &hex);
	return arena_str(arena, buf_str(&hex));
}

static int match_others(struct control_tx *t, const struct side *side, int64_t id, const struct label_set *set,
			struct err *err)
{
	autoptr(sql_rows) rows = NULL;
	int rc = sql_query(t->tx, side->others, SQL_NO_ARGS, &rows, err);

	while (rc >= 0 && (rc = sql_next(rows, err)) > 0) {
		struct label_set other = {0};
		rc = label_set_from_key(sql_col_text(rows, 1), t->arena, &other, err);
		if (rc < 0)
			break;
		if (side->is_offer ? label_set_covers(set, &other) : label_set_covers(&other, set))
			rc = sql_exec(t->tx, side->match, SQL_ARGS(sql_i64(id), sql_i64(sql_col_i64(rows, 0))), NULL,
				      err);
	}
	return rc;
}

/* 1: it is new. 0: it was there. */
static int store(struct control_tx *t, const struct side *side, const struct label_set *set, int64_t *ret_id,
		 struct err *err)
{
	const char *key = label_set_key(set, t->arena);
	const char *digest = digest_of(key, t->arena);
	int64_t id = 0;
	int rc = sql_get_i64(t->tx, side->find, SQL_ARGS(sql_text(digest)), ret_id, err);

	if (rc != 0)
		return rc < 0 ? rc : 0;
	/* The id comes first, and from one sequence for both: its row makes the writers of sets and offers wait for one
	 * another, so that neither misses a match. Then somebody may just have stored this one. */
	rc = control_next_id(t, "label_set", &id, err);
	if (rc == 0)
		rc = sql_get_i64(t->tx, side->find, SQL_ARGS(sql_text(digest)), ret_id, err);
	if (rc != 0)
		return rc < 0 ? rc : 0;
	rc = sql_exec(t->tx, side->insert, SQL_ARGS(sql_i64(id), sql_text(digest), sql_text(key)), NULL, err);
	if (rc == 0)
		rc = match_others(t, side, id, set, err);
	if (rc < 0)
		return rc;
	*ret_id = id;
	return 1;
}

int label_set_store(struct control_tx *t, const struct label_set *set, int64_t *ret_id, struct err *err)
{
	int rc = store(t, &sets, set, ret_id, err);

	if (rc <= 0)
		return rc;
	rc = 0;
	for (size_t i = 0; i < set->count && rc == 0; i++)
		rc = sql_exec(t->tx, "INSERT INTO label_set_member (label_set_id, label) VALUES ($1, $2)",
			      SQL_ARGS(sql_i64(*ret_id), sql_text(set->items[i])), NULL, err);
	return rc;
}

int offer_store(struct control_tx *t, const struct label_set *offer, int64_t *ret_id, struct err *err)
{
	int rc = store(t, &offers, offer, ret_id, err);

	return rc < 0 ? rc : 0;
}

int offer_find(struct sql_tx *tx, const struct label_set *offer, int64_t *ret_id, struct err *err)
{
	autoptr(arena) arena = arena_new();
	const char *digest = digest_of(label_set_key(offer, arena), arena);

	return sql_get_i64(tx, offers.find, SQL_ARGS(sql_text(digest)), ret_id, err);
}
