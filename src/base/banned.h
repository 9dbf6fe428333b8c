/*
 * Functions of the C library that this project does not use: unbounded, silent about errors, or not
 * safe in threads. Naming one does not compile. Included by base/compiler.h, so everywhere.
 */
#pragma once

/* The headers that declare them come first: a poisoned name may not appear in a declaration. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atoll strtol strtoul strtoll strtoull gets
#pragma GCC poison localtime gmtime asctime ctime
