/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_contrib.c: twins (aurora_redirect.h) of functions of contrib modules
 * that read pages.
 *
 * The originals read a block that is not cached from the table's local file,
 * which has none.  A function that reads one block finds it in shared_buffers
 * if we have it pinned meanwhile; one that reads a whole table is done anew
 * here.  Only for tables whose pages are on storage: all other calls are the
 * original's, those with wrong arguments among them, so that it complains.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/visibilitymap.h"
#include "catalog/namespace.h"
#include "common/relpath.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "am/aurora_am.h"
#include "cache/aurora_pagecache.h"
#include "cache/aurora_readahead.h"
#include "module/aurora_redirect.h"

PG_FUNCTION_INFO_V1(aurora_pg_prewarm);
PG_FUNCTION_INFO_V1(aurora_get_raw_page);
PG_FUNCTION_INFO_V1(aurora_get_raw_page_fork);
PG_FUNCTION_INFO_V1(aurora_pg_visibility_block);
PG_FUNCTION_INFO_V1(aurora_pg_visibility);
PG_FUNCTION_INFO_V1(aurora_pg_check_frozen);
PG_FUNCTION_INFO_V1(aurora_pg_check_visible);

/* Open the relation, locked, if its pages are on storage; else NULL. */
static Relation
open_if_remote(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		return NULL;
	if (aurora_is_aurora_rel(rel) && aurora_rel_is_remote(rel))
		return rel;
	relation_close(rel, AccessShareLock);
	return NULL;
}

/* ---- reading many blocks ---------------------------------------------- */

typedef struct Reader
{
	Relation	rel;
	BlockNumber end;			/* one past the last block */
	uint8		promise;		/* only blocks of which the visibility map says
								 * this; 0: all */
	Buffer		vmbuffer;
	AuroraAhead ahead;
	BufferAccessStrategy strategy;
} Reader;

/* The first block to be read after that one (block 0 follows
 * InvalidBlockNumber), InvalidBlockNumber if there is none. */
static BlockNumber
next_block(void *arg, BlockNumber after)
{
	Reader	   *r = arg;

	for (BlockNumber blk = after + 1; blk < r->end; blk++)
	{
		CHECK_FOR_INTERRUPTS();
		if (r->promise == 0 ||
			(visibilitymap_get_status(r->rel, blk, &r->vmbuffer) & r->promise))
			return blk;
	}
	return InvalidBlockNumber;
}

static void
reader_begin(Reader *r, BlockNumber end, uint8 promise,
			 BufferAccessStrategy strategy)
{
	r->end = end;
	r->promise = promise;
	r->vmbuffer = InvalidBuffer;
	r->strategy = strategy;
	aurora_ahead_init(&r->ahead, r->rel, CurrentMemoryContext, false,
					  next_block, r);
}

static Buffer
reader_read(Reader *r, BlockNumber blk)
{
	return aurora_ahead_read(&r->ahead, blk, r->strategy);
}

/* Closes the relation, too. */
static void
reader_end(Reader *r)
{
	aurora_ahead_end(&r->ahead);
	if (BufferIsValid(r->vmbuffer))
		ReleaseBuffer(r->vmbuffer);
	if (r->strategy != NULL)
		FreeAccessStrategy(r->strategy);
	relation_close(r->rel, AccessShareLock);
}

/* ---- pg_prewarm ------------------------------------------------------- */

static bool
text_is(Datum d, const char *value)
{
	return strcmp(TextDatumGetCString(d), value) == 0;
}

/* A block number argument; null stands for def. */
static bool
block_argument(FunctionCallInfo fcinfo, int arg, BlockNumber nblocks, int64 def,
			   int64 *blk)
{
	*blk = PG_ARGISNULL(arg) ? def : PG_GETARG_INT64(arg);
	return PG_ARGISNULL(arg) || (*blk >= 0 && *blk < nblocks);
}

static bool
prewarm_is_ours(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		return false;
	return text_is(PG_GETARG_DATUM(2), forkNames[MAIN_FORKNUM]) &&
		(text_is(PG_GETARG_DATUM(1), "prefetch") ||
		 text_is(PG_GETARG_DATUM(1), "read") ||
		 text_is(PG_GETARG_DATUM(1), "buffer"));
}

/*
 * pg_prewarm(regclass, mode text, fork text, first bigint, last bigint)
 *
 * There is no cache between storage and shared_buffers, so all three modes
 * bring pages there.
 */
Datum
aurora_pg_prewarm(PG_FUNCTION_ARGS)
{
	Reader		r = {0};
	BlockNumber nblocks;
	int64		first;
	int64		last;

	aurora_original_check(AURORA_PREWARM);
	if (prewarm_is_ours(fcinfo))
		r.rel = open_if_remote(PG_GETARG_OID(0));
	if (r.rel == NULL)
		return aurora_original_call(AURORA_PREWARM, fcinfo);

	nblocks = 0;
	if (pg_class_aclcheck(RelationGetRelid(r.rel), GetUserId(),
						  ACL_SELECT) == ACLCHECK_OK)
		nblocks = aurora_nblocks(r.rel);
	if (nblocks == 0 ||
		!block_argument(fcinfo, 3, nblocks, 0, &first) ||
		!block_argument(fcinfo, 4, nblocks, (int64) nblocks - 1, &last))
	{
		/* nothing to do, or an error: it reads nothing either way */
		relation_close(r.rel, AccessShareLock);
		return aurora_original_call(AURORA_PREWARM, fcinfo);
	}
	reader_begin(&r, (BlockNumber) (last + 1), 0, NULL);
	for (BlockNumber blk = next_block(&r, (BlockNumber) first - 1);
		 BlockNumberIsValid(blk); blk = next_block(&r, blk))
		ReleaseBuffer(reader_read(&r, blk));
	reader_end(&r);
	PG_RETURN_INT64(Max(last - first + 1, 0));
}

/* ---- one block -------------------------------------------------------- */

/* Call the original with the block pinned, if there is such a block on
 * storage.  An error releases pin and lock. */
static Datum
call_with_block(AuroraOriginal which, FunctionCallInfo fcinfo, Oid relid,
				int64 blkno)
{
	Relation	rel = open_if_remote(relid);
	Buffer		buf = InvalidBuffer;
	Datum		result;

	if (rel != NULL && blkno >= 0 && blkno < aurora_nblocks(rel))
		buf = aurora_read_buffer(rel, (BlockNumber) blkno, NULL);
	result = aurora_original_call(which, fcinfo);
	if (BufferIsValid(buf))
		ReleaseBuffer(buf);
	if (rel != NULL)
		relation_close(rel, AccessShareLock);
	return result;
}

/* The original is for superusers only; it says so before anything else. */
static Datum
raw_page(AuroraOriginal which, FunctionCallInfo fcinfo, int64 blkno)
{
	RangeVar   *name;

	if (!superuser())
		return aurora_original_call(which, fcinfo);
	name = makeRangeVarFromNameList(textToQualifiedNameList(PG_GETARG_TEXT_PP(0)));
	return call_with_block(which, fcinfo,
						   RangeVarGetRelid(name, AccessShareLock, true),
						   blkno);
}

/* get_raw_page(relname text, blkno bigint) */
Datum
aurora_get_raw_page(PG_FUNCTION_ARGS)
{
	aurora_original_check(AURORA_RAW_PAGE);
	return raw_page(AURORA_RAW_PAGE, fcinfo, PG_GETARG_INT64(1));
}

/* get_raw_page(relname text, fork text, blkno bigint) */
Datum
aurora_get_raw_page_fork(PG_FUNCTION_ARGS)
{
	aurora_original_check(AURORA_RAW_PAGE_FORK);
	if (!text_is(PG_GETARG_DATUM(1), forkNames[MAIN_FORKNUM]))
		return aurora_original_call(AURORA_RAW_PAGE_FORK, fcinfo);
	return raw_page(AURORA_RAW_PAGE_FORK, fcinfo, PG_GETARG_INT64(2));
}

/* pg_visibility(regclass, blkno bigint, OUT all_visible boolean,
 * OUT all_frozen boolean, OUT pd_all_visible boolean) */
Datum
aurora_pg_visibility_block(PG_FUNCTION_ARGS)
{
	aurora_original_check(AURORA_VISIBILITY_BLOCK);
	return call_with_block(AURORA_VISIBILITY_BLOCK, fcinfo, PG_GETARG_OID(0),
						   PG_GETARG_INT64(1));
}

/* ---- a whole table ---------------------------------------------------- */

/*
 * A set-returning twin's first lines: true if the table is ours to look at
 * (opened in r), and rows go to the tuplestore.  False: the original is to be
 * called; once it has begun, its state is in fn_extra.
 */
static bool
begin_table(AuroraOriginal which, FunctionCallInfo fcinfo, bits32 flags,
			uint8 promise, Reader *r)
{
	if (fcinfo->flinfo->fn_extra != NULL)
		return false;
	aurora_original_check(which);
	r->rel = open_if_remote(PG_GETARG_OID(0));
	if (r->rel == NULL)
		return false;
	InitMaterializedSRF(fcinfo, flags);
	reader_begin(r, aurora_nblocks(r->rel), promise,
				 GetAccessStrategy(BAS_BULKREAD));
	return true;
}

/* pg_visibility(regclass, OUT blkno bigint, OUT all_visible boolean,
 * OUT all_frozen boolean, OUT pd_all_visible boolean) */
Datum
aurora_pg_visibility(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Reader		r;

	if (!begin_table(AURORA_VISIBILITY, fcinfo, 0, 0, &r))
		return aurora_original_call(AURORA_VISIBILITY, fcinfo);
	for (BlockNumber blk = 0; blk < r.end; blk++)
	{
		uint8		map = visibilitymap_get_status(r.rel, blk, &r.vmbuffer);
		Buffer		buf = reader_read(&r, blk);
		Datum		values[4];
		bool		nulls[4] = {false};

		CHECK_FOR_INTERRUPTS();
		values[0] = Int64GetDatum((int64) blk);
		values[1] = BoolGetDatum((map & VISIBILITYMAP_ALL_VISIBLE) != 0);
		values[2] = BoolGetDatum((map & VISIBILITYMAP_ALL_FROZEN) != 0);
		LockBuffer(buf, BUFFER_LOCK_SHARE);
		values[3] = BoolGetDatum(PageIsAllVisible(BufferGetPage(buf)));
		UnlockReleaseBuffer(buf);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	reader_end(&r);
	return (Datum) 0;
}

/* Everybody sees the tuple.  The horizon was taken a while ago: a tuple that
 * fails is looked at again with a new one. */
static bool
everybody_sees(Relation rel, HeapTuple tup, Buffer buf, TransactionId *horizon)
{
	for (;;)
	{
		TransactionId newer;

		if (aurora_tuple_vacuum_status(tup, *horizon, buf) == HEAPTUPLE_LIVE &&
			TransactionIdPrecedes(HeapTupleHeaderGetXmin(tup->t_data), *horizon))
			return true;
		newer = GetOldestNonRemovableTransactionId(rel);
		if (!TransactionIdPrecedes(*horizon, newer))
			return false;
		*horizon = newer;
	}
}

/* The page's items that don't keep what the visibility map promises: all
 * visible, or (frozen) all frozen.  Content lock held. */
static void
check_page(Reader *r, Buffer buf, bool frozen, TransactionId *horizon,
		   ReturnSetInfo *result)
{
	Page		page = BufferGetPage(buf);
	OffsetNumber maxoff = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);

	for (OffsetNumber off = FirstOffsetNumber; off <= maxoff; off++)
	{
		ItemId		lp = PageGetItemId(page, off);
		HeapTupleData tup;
		bool		good = false;	/* of a dead line pointer, too */

		if (!ItemIdIsUsed(lp) || ItemIdIsRedirected(lp))
			continue;
		ItemPointerSet(&tup.t_self, BufferGetBlockNumber(buf), off);
		if (ItemIdIsNormal(lp))
		{
			tup.t_data = (HeapTupleHeader) PageGetItem(page, lp);
			tup.t_len = ItemIdGetLength(lp);
			tup.t_tableOid = RelationGetRelid(r->rel);
			good = frozen ? !heap_tuple_needs_eventual_freeze(tup.t_data) :
				everybody_sees(r->rel, &tup, buf, horizon);
		}
		if (!good)
		{
			Datum		value = PointerGetDatum(&tup.t_self);
			bool		isnull = false;

			tuplestore_putvalues(result->setResult, result->setDesc, &value,
								 &isnull);
		}
	}
}

static Datum
check_table(AuroraOriginal which, FunctionCallInfo fcinfo)
{
	bool		frozen = which == AURORA_CHECK_FROZEN;
	uint8		promise = frozen ? VISIBILITYMAP_ALL_FROZEN :
	VISIBILITYMAP_ALL_VISIBLE;
	TransactionId horizon = InvalidTransactionId;
	Reader		r;

	if (!begin_table(which, fcinfo, MAT_SRF_USE_EXPECTED_DESC, promise, &r))
		return aurora_original_call(which, fcinfo);
	if (!frozen)
		horizon = GetOldestNonRemovableTransactionId(r.rel);
	for (BlockNumber blk = next_block(&r, InvalidBlockNumber);
		 BlockNumberIsValid(blk); blk = next_block(&r, blk))
	{
		Buffer		buf = reader_read(&r, blk);

		LockBuffer(buf, BUFFER_LOCK_SHARE);
		/* it may have been taken back before we had the lock */
		if (visibilitymap_get_status(r.rel, blk, &r.vmbuffer) & promise)
			check_page(&r, buf, frozen, &horizon,
					   (ReturnSetInfo *) fcinfo->resultinfo);
		UnlockReleaseBuffer(buf);
	}
	reader_end(&r);
	return (Datum) 0;
}

/* pg_check_frozen(regclass, OUT t_ctid tid) */
Datum
aurora_pg_check_frozen(PG_FUNCTION_ARGS)
{
	return check_table(AURORA_CHECK_FROZEN, fcinfo);
}

/* pg_check_visible(regclass, OUT t_ctid tid) */
Datum
aurora_pg_check_visible(PG_FUNCTION_ARGS)
{
	return check_table(AURORA_CHECK_VISIBLE, fcinfo);
}
