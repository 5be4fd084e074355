/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_redirect.h: functions of the server and of contrib modules that look
 * at a table's file, and twins of ours in schema aurora that take their place;
 * aurora_redirect.c tells how.
 *
 * A twin does the original's work itself for a table whose pages are on
 * storage, and in every other case calls the original, with its own fcinfo.
 */
#ifndef AURORA_REDIRECT_H
#define AURORA_REDIRECT_H

#include "postgres.h"

#include "fmgr.h"

/* The originals. */
typedef enum AuroraOriginal
{
	AURORA_RELATION_SIZE,		/* pg_relation_size(regclass) */
	AURORA_RELATION_SIZE_FORK,	/* pg_relation_size(regclass, text) */
	AURORA_TABLE_SIZE,
	AURORA_TOTAL_RELATION_SIZE,
	AURORA_DATABASE_SIZE_OID,
	AURORA_DATABASE_SIZE_NAME,
	AURORA_PREWARM,				/* pg_prewarm */
	AURORA_RAW_PAGE,			/* pageinspect: get_raw_page(text, bigint) */
	AURORA_RAW_PAGE_FORK,		/* get_raw_page(text, text, bigint) */
	AURORA_VISIBILITY_BLOCK,	/* pg_visibility(regclass, bigint) */
	AURORA_VISIBILITY,			/* pg_visibility(regclass) */
	AURORA_CHECK_FROZEN,		/* pg_check_frozen(regclass) */
	AURORA_CHECK_VISIBLE		/* pg_check_visible(regclass) */
} AuroraOriginal;

#define AURORA_ORIGINALS (AURORA_CHECK_VISIBLE + 1)

/*
 * First thing in a twin: an error unless the caller may execute the original
 * (a twin must not be a way around what was revoked), which must exist in
 * this database.
 */
extern void aurora_original_check(AuroraOriginal which);

/* Do what the original does.  fcinfo is the twin's. */
extern Datum aurora_original_call(AuroraOriginal which, FunctionCallInfo fcinfo);

/* From _PG_init. */
extern void aurora_redirect_install(void);

#endif							/* AURORA_REDIRECT_H */
