/*
 * What `nimbus top` shows, from an answer of GET /api/overview. Pure.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "base/table.h"

struct top_page {
	const struct js *overview; /* the last that came; NULL: none has */
	const char *trouble;	   /* why there is none newer; NULL: it is new */
	int64_t trouble_ns;	   /* for how long */
	size_t rows;		   /* of the terminal; SIZE_MAX: any number */
};

int top_page_put(const struct top_page *page, const struct screen *screen, struct buf *out, struct err *err) must_check;
