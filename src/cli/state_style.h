/*
 * The style that the state of a job has in lists.
 */
#pragma once

#include "base/table.h"

enum style state_style(const char *state);
