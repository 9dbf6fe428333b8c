/*
 * Sets of labels in the database: what jobs want and what agents offer, each stored once, and which offer covers which
 * set, found out once, when either is new.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"
#include "control/db/db.h"
#include "model/labels.h"

int label_set_store(struct control_tx *t, const struct label_set *set, int64_t *ret_id, struct err *err) must_check;
int offer_store(struct control_tx *t, const struct label_set *offer, int64_t *ret_id, struct err *err) must_check;
/* 1 found, 0 that offer was never made. */
int offer_find(struct sql_tx *tx, const struct label_set *offer, int64_t *ret_id, struct err *err) must_check;
