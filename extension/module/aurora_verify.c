/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_verify.c: is a cached page what storage would give?
 *
 * The invariant that Aurora leans on is: page on compute = page on storage at
 * one LSN, hint bits and the like aside (au_page_mask).  Here it is checked
 * for the pages that happen to be in shared_buffers:
 *
 *	1. copy the page under its share lock, with its LSN
 *	2. flush the log up to that LSN, so that storage can get it
 *	3. ask storage for the newest version; if its LSN is another one, because
 *	   the page was changed after step 1, ask for the version as of exactly
 *	   the copy's LSN
 *	4. mask both, compare
 *
 * Step 3 asks for the newest first because a page that has not changed for
 * long may have an LSN below the retention horizon, as of which nothing is
 * read any more, while its newest version is always there.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/itemid.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"

#include "am/aurora_am.h"
#include "cache/aurora_pagecache.h"
#include "client/aurora_client.h"
#include "common/au_page.h"
#include "module/aurora_module.h"
#include "module/aurora_verify.h"

#define VERIFY_BATCH 32
#define PROBLEM_BYTES 256

PG_FUNCTION_INFO_V1(aurora_verify_pages);
PG_FUNCTION_INFO_V1(aurora_verify_count);

typedef struct Copy
{
	BlockNumber blk;
	XLogRecPtr	lsn;
	char		page[BLCKSZ];
} Copy;

typedef struct Verifier
{
	Relation	rel;
	ReturnSetInfo *result;		/* NULL: only count */
	MemoryContext batch_cxt;

	int			n;
	XLogRecPtr	begun;			/* where the log was then; storage holds it for us */
	Copy	   *copies;			/* VERIFY_BATCH of them */
	char	   *stored;			/* pages of storage */

	int64		compared;
	int64		differing;
} Verifier;

Relation
aurora_sql_open(Oid relid, LOCKMODE lockmode)
{
	Relation	rel;

	aurora_require_preloaded();
	rel = relation_open(relid, lockmode);
	if (!aurora_is_aurora_rel(rel))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table of access method aurora",
						RelationGetRelationName(rel))));
	return rel;
}

static void
report(Verifier *v, const Copy *copy, const char *problem)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	v->differing++;
	if (v->result == NULL)
		return;
	values[0] = Int64GetDatum((int64) copy->blk);
	values[1] = LSNGetDatum(copy->lsn);
	values[2] = CStringGetTextDatum(problem);
	tuplestore_putvalues(v->result->setResult, v->result->setDesc, values, nulls);
}

/* In words, what byte off of the page belongs to. */
static void
describe_place(const char *page, int off, char *buf, size_t len)
{
	PageHeader	hdr = (PageHeader) page;

	if (off < SizeOfPageHeaderData)
		snprintf(buf, len, "page header");
	else if (off < hdr->pd_lower)
		snprintf(buf, len, "line pointer %d",
				 (int) ((off - SizeOfPageHeaderData) / sizeof(ItemIdData)) + 1);
	else
	{
		int			nitems = PageGetMaxOffsetNumber((Page) page);

		for (int i = 1; i <= nitems; i++)
		{
			ItemId		id = PageGetItemId((Page) page, i);

			if (ItemIdHasStorage(id) && off >= (int) ItemIdGetOffset(id) &&
				off < (int) (ItemIdGetOffset(id) + ItemIdGetLength(id)))
			{
				snprintf(buf, len, "byte %d of item %d",
						 off - (int) ItemIdGetOffset(id), i);
				return;
			}
		}
		snprintf(buf, len, "no item");
	}
}

/*
 * Compare the copy with storage's version.  Returns false and the reason.
 * Masks both in place.
 */
static bool
pages_agree(Copy *copy, char *stored, uint8 status, char *problem)
{
	const char *why = NULL;
	XLogRecPtr	stored_lsn;
	char		place[64];

	if (!au_page_valid((const uint8_t *) copy->page, &why))
	{
		snprintf(problem, PROBLEM_BYTES, "cached page is damaged: %s", why);
		return false;
	}
	if (status == AU_NOT_FOUND)
	{
		snprintf(problem, PROBLEM_BYTES, "storage has no version of this block");
		return false;
	}
	if (!au_page_valid((const uint8_t *) stored, &why))
	{
		snprintf(problem, PROBLEM_BYTES, "page on storage is damaged: %s", why);
		return false;
	}
	stored_lsn = au_page_lsn((const uint8_t *) stored);
	if (stored_lsn != copy->lsn)
	{
		snprintf(problem, PROBLEM_BYTES,
				 "as of this LSN storage has the version of %X/%X",
				 LSN_FORMAT_ARGS(stored_lsn));
		return false;
	}

	au_page_mask((uint8_t *) copy->page);
	au_page_mask((uint8_t *) stored);
	for (int off = 0; off < BLCKSZ; off++)
	{
		if (copy->page[off] == stored[off])
			continue;
		describe_place(copy->page, off, place, sizeof(place));
		snprintf(problem, PROBLEM_BYTES,
				 "byte %d (%s) is %02x in the cache, %02x on storage",
				 off, place, (uint8) copy->page[off], (uint8) stored[off]);
		return false;
	}
	return true;
}

/* Compare what has been copied. */
static void
compare_batch(Verifier *v)
{
	BlockNumber blocks[VERIFY_BATCH];
	uint8		status[VERIFY_BATCH];
	XLogRecPtr	newest = InvalidXLogRecPtr;
	MemoryContext old = MemoryContextSwitchTo(v->batch_cxt);

	for (int i = 0; i < v->n; i++)
	{
		blocks[i] = v->copies[i].blk;
		newest = Max(newest, v->copies[i].lsn);
	}
	if (v->n > 0)
	{
		if (!RecoveryInProgress())
			XLogFlush(newest);
		aurora_client_get_pages(&v->rel->rd_node, blocks, v->n, newest,
								InvalidXLogRecPtr, v->stored, status);
	}
	for (int i = 0; i < v->n; i++)
	{
		Copy	   *copy = &v->copies[i];
		char	   *stored = v->stored + (Size) i * BLCKSZ;
		char		problem[PROBLEM_BYTES];

		if (status[i] != AU_OK ||
			au_page_lsn((const uint8_t *) stored) != copy->lsn)
		{
			/*
			 * Changed since.  A page that had rested for long has an LSN that
			 * storage may not know any more, but it was copied after we
			 * began, so it is the version of that moment, too.
			 */
			XLogRecPtr	as_of = Max(copy->lsn, v->begun);

			aurora_client_get_pages(&v->rel->rd_node, &copy->blk, 1, as_of,
									as_of, stored, &status[i]);
		}
		v->compared++;
		if (!pages_agree(copy, stored, status[i], problem))
			report(v, copy, problem);
	}
	v->n = 0;
	MemoryContextSwitchTo(old);
	MemoryContextReset(v->batch_cxt);
}

/*
 * Copy the page if it is cached.  A new (all-zero) page in the cache is one
 * that somebody is about to fill, or failed to: nobody takes it for content.
 */
static void
copy_page(Verifier *v, BlockNumber blk)
{
	Copy	   *copy = &v->copies[v->n];
	Buffer		buffer = aurora_find_cached(&v->rel->rd_node, blk);
	XLogRecPtr	log_end;

	if (!BufferIsValid(buffer))
		return;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	copy->blk = blk;
	memcpy(copy->page, BufferGetPage(buffer), BLCKSZ);
	UnlockReleaseBuffer(buffer);
	if (PageIsNew((Page) copy->page))
		return;

	copy->lsn = PageGetLSN((Page) copy->page);
	log_end = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetXLogInsertRecPtr();
	if (copy->lsn == InvalidXLogRecPtr || copy->lsn > log_end)
	{
		/* Storage cannot be asked as of that. */
		v->compared++;
		report(v, copy, "the cached page's LSN is not a position in the log");
		return;
	}
	v->n++;
}

static void
compare_all(Verifier *v)
{
	BlockNumber nblocks = aurora_nblocks(v->rel);

	for (BlockNumber blk = 0; blk < nblocks; blk++)
	{
		CHECK_FOR_INTERRUPTS();
		copy_page(v, blk);
		if (v->n == VERIFY_BATCH)
			compare_batch(v);
	}
	compare_batch(v);
}

static void
verify(Verifier *v, Oid relid)
{
	v->rel = aurora_sql_open(relid, AccessShareLock);
	if (aurora_rel_is_remote(v->rel))
	{
		v->copies = palloc(VERIFY_BATCH * sizeof(Copy));
		v->stored = palloc((Size) VERIFY_BATCH * BLCKSZ);
		v->batch_cxt = AllocSetContextCreate(CurrentMemoryContext, "aurora verify",
											 ALLOCSET_DEFAULT_SIZES);
		v->begun = RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetFlushRecPtr(NULL);
		/* without a hold the retention has to do */
		(void) aurora_client_hold(v->begun);
		PG_TRY();
		{
			compare_all(v);
		}
		PG_CATCH();
		{
			aurora_client_drop_hold();
			PG_RE_THROW();
		}
		PG_END_TRY();
		(void) aurora_client_hold(InvalidXLogRecPtr);
	}
	relation_close(v->rel, AccessShareLock);
}

/* verify_pages(regclass, OUT blkno bigint, OUT lsn pg_lsn, OUT problem text) */
Datum
aurora_verify_pages(PG_FUNCTION_ARGS)
{
	Verifier	v = {0};

	InitMaterializedSRF(fcinfo, 0);
	v.result = (ReturnSetInfo *) fcinfo->resultinfo;
	verify(&v, PG_GETARG_OID(0));
	return (Datum) 0;
}

/* verify_count(regclass, OUT compared bigint, OUT differing bigint) */
Datum
aurora_verify_count(PG_FUNCTION_ARGS)
{
	Verifier	v = {0};
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	verify(&v, PG_GETARG_OID(0));
	values[0] = Int64GetDatum(v.compared);
	values[1] = Int64GetDatum(v.differing);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}
