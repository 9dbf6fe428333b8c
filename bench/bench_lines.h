/*
 * The lines that the benches of logs are about: 120 bytes of what a build prints, mostly words that were there before
 * and some figures that were not.
 */
#pragma once

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "proto/log_line.h"

enum { BENCH_LINE_SIZE = 120 };

static inline void bench_line(char text[static BENCH_LINE_SIZE], int64_t job, int64_t seq)
{
	static const char *const words[] = {"Compiling", "Linking", "warning: unused", "ok", "PASS", "Downloading"};
	uint64_t noise =
		((uint64_t)job * UINT64_C(0x9e3779b97f4a7c15)) ^ ((uint64_t)seq * UINT64_C(0xd1342543de82ef95));
	char full[256];

	int len = snprintf(full, sizeof(full),
			   "[%5" PRId64 "] %s src/module_%03u/file_%04u.c -> build/obj/%016" PRIx64
			   ".o in %u ms (worker %u, cache %s) %s",
			   seq, words[noise % 6], (unsigned)(noise >> 8 & 127), (unsigned)(noise >> 16 & 4095), noise,
			   (unsigned)(noise >> 32 & 1023), (unsigned)(noise >> 5 & 7), noise & 64 ? "hit" : "miss",
			   "........................................................");
	if (len < BENCH_LINE_SIZE)
		abort();
	memcpy(text, full, BENCH_LINE_SIZE);
}

static inline struct log_line bench_log_line(const char *text, int64_t job, int64_t seq)
{
	return (struct log_line){
		.org_id = 1,
		.job_id = job,
		.attempt = 1,
		.seq = seq,
		.timestamp = INT64_C(1795264800000000000) + seq * 100000,
		.agent_id = STR("host-1"),
		.message = {text, BENCH_LINE_SIZE},
	};
}
