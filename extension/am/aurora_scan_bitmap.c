/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_scan_bitmap.c: bitmap heap scans.
 *
 * The bitmap gives a block and, unless it ran short of memory, the offsets
 * that the index knows about.  One visit to the page notes what is visible;
 * the tuples are then handed out without a lock.  Here `position` is the
 * index of the next one to hand out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "am/aurora_scan.h"
#include "executor/tuptable.h"
#include "nodes/tidbitmap.h"
#include "pgstat.h"
#include "storage/predicate.h"

/* The bitmap names offsets: each may be the root of a HOT chain. */
static int
note_exact(AuroraScanDesc scan, TBMIterateResult *tbmres)
{
	int			n = 0;

	for (int i = 0; i < tbmres->ntuples; i++)
	{
		ItemPointerData tid;
		HeapTupleData tuple;

		ItemPointerSet(&tid, scan->block, tbmres->offsets[i]);
		if (aurora_hot_search_buffer(&tid, scan->rel, scan->buffer,
									 scan->base.rs_snapshot, &tuple, NULL, true))
			scan->vis_offsets[n++] = ItemPointerGetOffsetNumber(&tid);
	}
	return n;
}

/* The bitmap names only the page: all its tuples, chains or not, are looked
 * at, and the executor checks the condition again. */
static int
note_lossy(AuroraScanDesc scan)
{
	Snapshot	snapshot = scan->base.rs_snapshot;
	Page		page = BufferGetPage(scan->buffer);
	OffsetNumber maxoff = PageGetMaxOffsetNumber(page);
	int			n = 0;

	for (OffsetNumber offnum = FirstOffsetNumber; offnum <= maxoff; offnum++)
	{
		ItemId		lp = PageGetItemId(page, offnum);
		HeapTupleData tuple;
		bool		visible;

		if (!ItemIdIsNormal(lp))
			continue;
		aurora_tuple_at(&tuple, scan->rel, page, lp, scan->block, offnum);
		visible = aurora_tuple_visible(&tuple, snapshot, scan->buffer);
		if (visible)
		{
			scan->vis_offsets[n++] = offnum;
			PredicateLockTID(scan->rel, &tuple.t_self, snapshot,
							 HeapTupleHeaderGetXmin(tuple.t_data));
		}
		aurora_serializable_conflict_out(visible, scan->rel, &tuple,
										 scan->buffer, snapshot);
	}
	return n;
}

/* Go to the bitmap's next page; false if nothing on it is visible. */
bool
aurora_scan_bitmap_next_block(TableScanDesc sscan,
							  struct TBMIterateResult *tbmres)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;
	BlockNumber block = tbmres->blockno;

	scan->position = 0;
	scan->nvisible = 0;

	/*
	 * What was appended since the scan began is not visible to it.  A
	 * serializable transaction must look at it all the same: passing it over
	 * is a conflict.
	 */
	if (block >= scan->nblocks && !IsolationIsSerializable())
		return false;

	if (!BufferIsValid(scan->buffer) || scan->block != block)
	{
		if (BufferIsValid(scan->buffer))
		{
			ReleaseBuffer(scan->buffer);
			scan->buffer = InvalidBuffer;
		}
		aurora_scan_read_ahead_run(scan, block, NULL);
		scan->buffer = aurora_read_buffer(scan->rel, block, NULL);
		scan->block = block;
	}

	aurora_prune_opt(scan->rel, scan->buffer);

	LockBuffer(scan->buffer, BUFFER_LOCK_SHARE);
	scan->nvisible = tbmres->ntuples >= 0 ?
		note_exact(scan, tbmres) : note_lossy(scan);
	LockBuffer(scan->buffer, BUFFER_LOCK_UNLOCK);

	Assert(scan->nvisible <= MaxHeapTuplesPerPage);
	return scan->nvisible > 0;
}

bool
aurora_scan_bitmap_next_tuple(TableScanDesc sscan,
							  struct TBMIterateResult *tbmres,
							  TupleTableSlot *slot)
{
	AuroraScanDesc scan = (AuroraScanDesc) sscan;
	OffsetNumber offnum;
	Page		page;

	if (scan->position >= scan->nvisible)
		return false;

	page = BufferGetPage(scan->buffer);
	offnum = scan->vis_offsets[scan->position++];
	Assert(ItemIdIsNormal(PageGetItemId(page, offnum)));
	aurora_tuple_at(&scan->tuple, scan->rel, page, PageGetItemId(page, offnum),
					scan->block, offnum);

	pgstat_count_heap_fetch(scan->rel);
	ExecStoreBufferHeapTuple(&scan->tuple, slot, scan->buffer);
	return true;
}
