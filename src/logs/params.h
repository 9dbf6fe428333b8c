/*
 * What the query string of a reading call says: text in, checked values out.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "logs/filter.h"

/* The value of a parameter, or NULL where it is absent. */
typedef const char *log_param_fn(const void *ctx, const char *name);

enum { LOG_PARAM_TEXT_MAX = 256 }; /* bytes of what is looked for */

struct log_params {
	int64_t org_id;		  /* 0: not said */
	int64_t job_id;		  /* 0: not said */
	int64_t attempt;	  /* -1: not said */
	struct log_filter filter; /* its text is borrowed from the parameters */
	int64_t hours_back;	  /* 0: not said */
	int64_t limit;
	bool oldest_first;
	const char *cursor; /* NULL: none */
	int64_t tail;	    /* -1: not said */
	bool follow;
};

/* ERR_INVALID_FIELD names the parameter. */
int log_params_read(log_param_fn *get, const void *ctx, struct log_params *ret, struct err *err) must_check;
