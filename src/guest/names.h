/*
 * Names for a job that has a network: a process that takes questions on 127.0.0.1:53 by UDP and brings each by TCP to
 * the same port, where the service "dns" takes them to the host's resolvers (proto/guest_stream.h). Who asks by TCP is
 * there at once.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"

/* Of the service, on whose port it listens too. */
#define NAMES_SERVICE "dns"

/* Points the machine's resolv.conf here. */
void names_point_here(void);
/* Forks it, before the job starts; it ends with everything else. */
int names_start(struct err *err) must_check;
