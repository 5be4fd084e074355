/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counting.c: SQL functions that switch callgrind's counting on and off in
 * the backend they are called in.  Used by profile.py only; outside of
 * valgrind they do nothing.
 */
#include "postgres.h"

#include <valgrind/callgrind.h>

#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(counting_start);
PG_FUNCTION_INFO_V1(counting_stop);

/* Forget what was counted so far and count from here. */
Datum
counting_start(PG_FUNCTION_ARGS)
{
	CALLGRIND_START_INSTRUMENTATION;
	CALLGRIND_ZERO_STATS;
	PG_RETURN_VOID();
}

/* Write what was counted, under a name, into callgrind's next file. */
Datum
counting_stop(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	CALLGRIND_DUMP_STATS_AT(name);
	CALLGRIND_STOP_INSTRUMENTATION;
	PG_RETURN_VOID();
}
